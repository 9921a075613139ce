"""Profiles and screens as YAML."""
