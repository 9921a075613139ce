"""Generated clips compared with real ones and with each other: what is generated, measured and asked."""
