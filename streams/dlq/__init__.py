"""Dead letters after they were written: looked at, mended, and sent back once each."""
