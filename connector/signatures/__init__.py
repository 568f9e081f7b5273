"""Signatures on tokens and objects (JWS) and on HTTP messages. Pure."""
