"""What an evidence file says of money, against what was signed and agreed. Pure."""
