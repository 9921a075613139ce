"""What implementations share to load and run a network."""
