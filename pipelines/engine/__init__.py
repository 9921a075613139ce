"""What runs a pipeline: settings, plan, workers, runners, records. Knows no paper."""
