"""Policies, requests, worlds and reports as RDF: Turtle, and JSON-LD of any shape. Pure, and nothing is ever fetched."""
