"""What a pipeline needs on the broker: its stages, their topics, and what is missing of them."""
