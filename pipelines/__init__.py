"""One file per pipeline, the engine that runs them, and the command line."""
