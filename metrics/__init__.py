"""One file for each metric of `interavatar evaluate`, and what they share."""
