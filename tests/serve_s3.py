"""``make s3``: an S3 server for people to try ImageMill on, until Ctrl-C."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

from tests.seaweedfs import FULL, Ports, SeaweedFS

_PORTS = Ports(s3=8333, master=9333, volume=9340, filer=8888, admin=9646)


def main(folder: str) -> int:
    """Serve ``folder``; what is in it stays for the next time."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    server = SeaweedFS(Path(folder).resolve(), ports=_PORTS)
    try:
        with server:
            print(_introduction(server), flush=True)
            signal.pause()
    except RuntimeError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"\nstopped; its data stays in {server.folder}")
    return 0


def _introduction(server: SeaweedFS) -> str:
    exports = [f"export {name}={value}" for name, value in server.environment(FULL).items()]
    return "\n".join(
        [
            f"An S3 server with the bucket 'images' answers at {server.endpoint_url}.",
            "Let ImageMill, or any S3 client, find it:",
            "",
            *(f"  {line}" for line in exports),
            "",
            "and make some pictures there:",
            "",
            "  .venv/bin/imagemill run input.path=examples/prompts.parquet "
            "output.path=s3://images/example",
            "  .venv/bin/imagemill verify s3://images/example",
            "",
            "Ctrl-C stops it.",
        ]
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
