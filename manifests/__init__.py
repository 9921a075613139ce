"""The manifest: its schema, how it is written and read, screening."""
