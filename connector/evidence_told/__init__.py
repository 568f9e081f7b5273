"""What is told of an evidence file that was checked. Pure."""
