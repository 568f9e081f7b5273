"""The help of the command line as a whole."""
