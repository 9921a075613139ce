"""One file per stage, and the contract they keep."""
