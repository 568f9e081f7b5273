"""What the connector says of policies and decisions, in Chinese."""
