"""The one place that opens, decodes and writes pictures, video and sound."""
