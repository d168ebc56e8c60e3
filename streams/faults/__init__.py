"""Faults on purpose: a pipeline is run while its workers, broker and Redis are hurt, and what is left is checked against its definition."""
