"""The networks that are trained, and the encoders before them."""
