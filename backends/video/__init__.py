"""Models that make videos."""
