"""The long run of the fault harness."""
