"""Tables in, answers out: call trees, overviews. Knows nothing of terminals or HTML."""
