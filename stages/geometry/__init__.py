"""Geometry of the body that several stages share."""
