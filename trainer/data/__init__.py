"""From shards to batches: clips, crops, dropout, order, cached latents."""
