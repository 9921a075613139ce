"""Whether a machine, or a cluster, can run a profile: what is missing, each with the way out."""
