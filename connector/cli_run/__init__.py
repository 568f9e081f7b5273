"""`connector run` itself, and how every command ends."""
