"""What the page of an ensemble shows."""
