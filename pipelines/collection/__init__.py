"""Several runs as one collection: copies, people, splits, provenance, search."""
