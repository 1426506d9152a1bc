"""Commands that only look at a job use the keys that they are given, or say that they do not."""

from __future__ import annotations

from pathlib import Path

import pytest

from jobs.cli import main
from tests.small_jobs import run_small_job

ROWS = [{"prompt": f"picture {number}"} for number in range(8)]
TINY = {"sampling.width": 16, "sampling.height": 16, "sampling.steps": 2}


@pytest.mark.parametrize("command", ["status", "verify", "cancel", "gc"])
def test_a_key_that_would_change_nothing_is_refused(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small = run_small_job(tmp_path, ROWS, shards=[0], **TINY)
    assert main([command, small.store.url, "cluster.workers=3", "storage.patience_s=5"]) == 2
    assert capsys.readouterr().err == (
        f"imagemill: 'cluster.workers=3' changes nothing that 'imagemill {command}' tells or does; "
        "it takes storage.* keys; leave it out, or give it to imagemill resume\n"
    )
