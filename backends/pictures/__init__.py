"""Models of whole pictures: embeddings, quality, classes, text, tracked points."""
