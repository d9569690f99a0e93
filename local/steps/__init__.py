"""Python steps that are forked from one process that has imported the libraries."""
