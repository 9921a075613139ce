"""One file per role: a Protocol and its implementations."""
