"""Leaves of content logs hashed many at a time, in the lanes of vector registers, where a processor has no instructions for SHA-256."""
