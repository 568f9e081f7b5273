"""Other forms of policies: RDF, text, templates, profile packs, plain words. Pure."""
