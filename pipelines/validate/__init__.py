"""What a manifest claims against what people labelled: precision, recall and error of each claim."""
