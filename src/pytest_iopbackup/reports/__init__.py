"""Reports: pure functions from a run's record to text."""
