"""Performance, as ratios inside one run; see docs/performance.md."""
