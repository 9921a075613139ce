"""One file per pipeline, and below them the engine, shards, estimates and the command line."""
