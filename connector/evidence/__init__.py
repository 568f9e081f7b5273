"""The evidence of an agreement as one file that needs nobody else to be checked. Pure."""
