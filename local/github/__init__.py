"""GitHub on this machine: the REST calls that we make, and runs of the real workflow files under act."""
