"""What both sides sign about a transfer: manifest, receipts, acks, statements; what it costs; and the evidence of it. Pure."""
