"""The demo of ``millrace demo``: simulated payments through broker, Redis and one worker, with a summary that checks itself."""
