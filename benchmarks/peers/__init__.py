"""Millrace beside other engines: the same job, events, model and broker, in the same hour (``python -m benchmarks.peers``)."""
