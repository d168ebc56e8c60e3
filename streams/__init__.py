"""Kafka and lifecycle: where records come from, what makes a batch final, and how a worker starts, recovers and stops."""
