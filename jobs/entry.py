"""The console script: an interrupt is no traceback, not even while the libraries load."""

from __future__ import annotations

import os
import sys


def main() -> int:
    """See ``jobs.cli.main``."""
    # what gRPC tells its own developers, such as each handshake that failed, is no message of ours
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    try:
        from jobs.cli import main as command_line

        return command_line()
    except KeyboardInterrupt:
        print("imagemill: interrupted; nothing was started", file=sys.stderr)
        return 3


if __name__ == "__main__":
    sys.exit(main())
