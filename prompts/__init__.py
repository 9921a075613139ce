"""Every prompt as a text file with named placeholders, and beside it the schema of its answer."""
