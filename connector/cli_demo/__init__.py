"""What the demo runs: its data, and two connectors with a line between them. What it shows is in `cli/`."""
