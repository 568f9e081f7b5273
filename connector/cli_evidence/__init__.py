"""What `connector evidence` does: without the libraries of the command line, which are for `cli/` alone."""
