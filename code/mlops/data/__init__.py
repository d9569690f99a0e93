"""The training data: what is read, how it is checked, and the record of both."""
