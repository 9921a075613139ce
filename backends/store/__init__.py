"""The model store: which weights there are, where they lie, how they come and are compared."""
