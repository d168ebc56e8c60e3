"""What tests put into the example's `night`: lines that wait, or break, when the test says so."""

from __future__ import annotations

_LAST_LINE = "    return time % days(1) // hours(1) <= 6\n"

# In the worker whose environment names a file, a batch waits as long as the file is there.
STALLING = {
    _LAST_LINE: f"""\
    import os
    from time import sleep
    while len(time) and os.path.exists(os.environ.get("MILLRACE_TEST_STALL", "")):
        sleep(0.005)
{_LAST_LINE}"""
}


def breaking(line: str) -> dict[str, str]:
    """A line run once a payment of 13.37 is in the batch: `found` is what `night` would give, `bad` marks the payment's row."""
    return {
        _LAST_LINE: f"""\
    found = time % days(1) // hours(1) <= 6
    bad = event["amount"] == 13.37
    if bad.any():
        {line}
    return found
"""
    }
