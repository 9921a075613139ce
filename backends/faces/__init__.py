"""Models of the face: detector, identity, mesh."""
