"""What is said of two models and on what evidence: tests, intervals, verdicts."""
