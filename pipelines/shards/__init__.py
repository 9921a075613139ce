"""From manifests to WebDataset shards for a trainer."""
