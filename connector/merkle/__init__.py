"""Logs that prove themselves: RFC 6962 trees, C2SP notes, checkpoints, tiles and proofs. Pure."""
