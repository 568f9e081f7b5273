"""Policies for people: profile packs, templates, the small text form, plain words, and all that can be said against a document. Pure."""
