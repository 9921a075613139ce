"""The thin trainer: shards in, checkpoints out (InterAvatar §3, appendix A and C.1)."""
