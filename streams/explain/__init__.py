"""One past decision, made again from the log: every event behind it, every number, and what moved the score."""
