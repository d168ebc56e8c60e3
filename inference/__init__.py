"""Feature rows to scores."""
