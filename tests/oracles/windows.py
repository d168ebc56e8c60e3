"""The slow definition of a window, where tests look for it; `millrace test faults` needs it as well, so it comes with the package."""

from transforms.slow_windows import LATE, ON_TIME, REPEATED, SET, TOO_LATE, UNMATCHED, Past, Remembered, Seen, feature

__all__ = ["LATE", "ON_TIME", "REPEATED", "SET", "TOO_LATE", "UNMATCHED", "Past", "Remembered", "Seen", "feature"]
