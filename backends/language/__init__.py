"""Language models that see: what they are asked, how answers are checked, kept and paid for."""
