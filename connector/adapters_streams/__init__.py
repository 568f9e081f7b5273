"""Streams that do not pass through the event loop: bytes that threads move."""
