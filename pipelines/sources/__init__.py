"""Published data sets as inputs: their own lists become samples, crops, captions, identities."""
