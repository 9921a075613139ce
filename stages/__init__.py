"""One file per stage, and the contract and media decoding they share."""
