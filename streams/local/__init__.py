"""A broker and a Redis of this machine, started and ended by us."""
