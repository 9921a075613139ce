"""`interavatar evaluate`: from folders of clips to the tables of the papers."""
