"""What was used and is owed, for the command line."""
