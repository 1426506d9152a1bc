"""What a user reads on the command line when a Triton server cannot be entered."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from tests.triton_peer import TritonPeer

ROOT = Path(__file__).parents[2]


def test_what_grpc_tells_its_developers_is_not_told(
    peers: Callable[..., TritonPeer], tmp_path: Path
) -> None:
    done = subprocess.run(
        [
            *(sys.executable, "-m", "jobs.entry", "run", "engine=triton"),
            f"triton.url=grpcs://{peers().grpc}",
            f"input.path={ROOT / 'examples' / 'prompts.parquet'}",
            f"output.path={tmp_path / 'out'}",
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("imagemill: no Triton server answers: grpcs://127.0.0.1:")
