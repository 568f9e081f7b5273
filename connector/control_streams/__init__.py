"""Use cases of streams: what follows for an order from how its transfer goes."""
