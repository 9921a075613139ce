"""Profiles, screens and training runs as YAML, and their reader."""
