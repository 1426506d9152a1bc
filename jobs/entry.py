"""The console script: an interrupt is no traceback, not even while the libraries load."""

from __future__ import annotations

import sys


def main() -> int:
    """See ``jobs.cli.main``."""
    try:
        from jobs.cli import main as command_line

        return command_line()
    except KeyboardInterrupt:
        print("imagemill: interrupted; nothing was started", file=sys.stderr)
        return 3


if __name__ == "__main__":
    sys.exit(main())
