"""A log, judged as a whole."""
