"""What things cost: each bench asserts its answer before it prints a number."""
