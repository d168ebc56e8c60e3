"""The command line, once it is sure that the packages behind it are Millrace's own."""

from __future__ import annotations

import sys

from millrace.hidden import hiding


def main() -> None:
    """Run the `millrace` command."""
    said = hiding()
    if said:
        print(f"millrace: {said}", file=sys.stderr)
        sys.exit(2)
    from streams.commands.cli import main as command_line

    command_line()


if __name__ == "__main__":
    main()
