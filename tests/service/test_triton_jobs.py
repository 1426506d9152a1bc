"""Whole jobs through a real tritonserver, as a user runs them; what is said when they cannot."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from cluster.store import Store
from cluster.totals import worker_lines
from jobs.cli import main
from jobs.open_job import open_job
from jobs.verify import Verification, verify
from tests.cluster.job_process import JobProcess, wait_until, write_prompts
from tests.scripted_triton import MODEL, SIZE, write_repository
from tests.small_jobs import SmallJob, prepare_small_job, run_small_job, work_on
from tests.stores import ONCE
from tests.triton_server import TritonServer

ROWS = 60


@pytest.fixture(scope="module")
def server(triton: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TritonServer]:
    folder = tmp_path_factory.mktemp("triton")
    repository = write_repository(folder / "models")
    with TritonServer(folder, repository, explicit=[MODEL]) as running:
        yield running


def words(server: TritonServer, tmp_path: Path, *more: str) -> list[str]:
    """A job's overrides; of its rows one fails by itself."""
    rows: list[dict[str, object]] = [
        {"prompt": "fail" if number == 7 else "wait 0.05"} for number in range(ROWS)
    ]
    return [
        "engine=triton",
        f"triton.url=grpc://{server.grpc}",
        f"triton.model={MODEL}",
        f"sampling.width={SIZE}",
        f"sampling.height={SIZE}",
        f"input.path={write_prompts(tmp_path / 'prompts.parquet', rows)}",
        f"output.path={tmp_path / 'out'}",
        "input.shard_rows=10",
        "job.commit_seconds=0.1",
        "job.max_quarantined=0.1",
        "cluster.heartbeat_s=0.2",
        *more,
    ]


def checked(output: Path) -> Verification:
    """Every row is committed or quarantined once, and the ledger closes."""
    found = verify(Store(str(output), ONCE))
    assert not found.problems
    assert (found.finished, found.pending) == (True, 0)
    assert (found.committed, found.quarantined) == (ROWS - 1, 1)
    return found


def test_a_job_goes_on_through_a_dead_stub_a_killed_and_a_frozen_server(
    server: TritonServer, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    job = JobProcess("run", *words(server, tmp_path))

    def committed(commits: int) -> None:
        wait_until(
            lambda: len(list(output.glob("commits/**/*.json"))) >= commits, f"{commits} commits"
        )

    committed(1)
    server.kill_stubs()
    committed(3)
    server.restart()
    committed(5)
    server.pause()
    assert job.pid
    server.go_on()
    assert job.finish() == 0, job.output
    checked(output)
    metadata = pq.read_table(output / "metadata").to_pylist()
    assert {row["engine"] for row in metadata} == {"triton"}
    assert {row["model_revision"] for row in metadata} == {"r1"}
    (bad,) = pq.read_table(output / "quarantine").to_pylist()
    assert (bad["stage"], bad["reason"]) == ("check", "nan_image")


def small_words(server: TritonServer) -> dict[str, Any]:
    """The configuration of a job in this process."""
    return {
        "engine.name": "triton",
        "engine.precision": "auto",
        "engine.max_batch": None,
        "triton.url": f"grpc://{server.grpc}",
        "triton.model": MODEL,
        "sampling.width": SIZE,
        "sampling.height": SIZE,
        "pricing.price_per_hour": "3.6",
    }


def small_job(server: TritonServer, tmp_path: Path, **more: Any) -> SmallJob:
    rows = [{"prompt": "fail" if number == 3 else "wait 0.01"} for number in range(10)]
    return run_small_job(tmp_path, rows, **small_words(server), **more)


def test_a_worker_whose_servers_stay_away_gives_its_rows_back_and_none_is_to_blame(
    triton: None, tmp_path: Path
) -> None:
    repository = write_repository(tmp_path / "models")
    rows = [{"prompt": "wait 0.05"} for _ in range(40)]
    with TritonServer(tmp_path / "server", repository, explicit=[MODEL]) as server:
        words = small_words(server) | {"triton.patience_s": 2, "job.commit_images": 1}
        small = prepare_small_job(tmp_path, rows, **words)
        with ThreadPoolExecutor(1) as pool:
            working = pool.submit(work_on, small)
            wait_until(lambda: small.totals().committed > 0, "a commit")
            server.kill()
            away = working.result()
        outcome = away.outcomes[-1]
        assert (outcome.error, outcome.retryable) == ("ServerLost", True)
        assert outcome.message.startswith("no Triton server made an image for triton.patience_s=")
        before = away.totals()
        assert 0 < before.committed < len(rows)
        server.start()
        again = work_on(away)
    assert again.outcomes[-1].error is None
    after = again.totals()
    assert (after.committed, after.quarantined) == (len(rows), 0)
    bill = again.bill()
    assert sum(bill.ns.values()) == bill.total_ns
    assert bill.ns["used"] == len(rows) * 1_000_000
    # those that were at the server when it was killed, and the two images of the beginnings
    assert 0 < bill.estimated_ns < bill.ns["wasted"]
    assert any(line.line_id.endswith(":estimated") for line in worker_lines(again.totals()))


def test_a_resumed_job_may_be_told_of_other_servers(server: TritonServer, tmp_path: Path) -> None:
    small = small_job(server, tmp_path)
    job, _ = open_job(small.store.url, ["triton.url=grpc://b:1", "triton.headers.x=TOKEN"])
    assert (job.config.triton.url, job.config.triton.headers) == ("grpc://b:1", {"x": "TOKEN"})
    assert job.config.triton.model == MODEL


def test_of_a_server_that_others_use_the_time_of_the_rows_is_paid_and_no_idle(
    server: TritonServer, tmp_path: Path
) -> None:
    small = small_job(server, tmp_path)
    bill = small.bill()
    # 9 images of 1 ms, a failure of 25 ms, and the image with which the worker began
    assert bill.total_ns == 35_000_000
    assert bill.total_amount == 35_000
    assert bill.ns == {
        "used": 9_000_000,
        "wasted": 26_000_000,
        "overhead": 0,
        "idle": 0,
    }


def test_a_server_of_our_own_is_paid_for_while_it_waits(
    server: TritonServer, tmp_path: Path
) -> None:
    small = small_job(server, tmp_path, **{"triton.owned": True})
    bill = small.bill()
    assert bill.ns["used"] == 9_000_000
    assert bill.ns["wasted"] == 25_000_000
    assert bill.ns["overhead"] > 0
    assert sum(bill.ns.values()) == bill.total_ns
    (use,) = small.totals().workers.values()
    assert use.stamp is not None
    assert use.stamp.lived_ns == use.stamp.lifetime_ns == bill.total_ns


def refusal(capsys: pytest.CaptureFixture[str], asked: list[str]) -> str:
    """What a run says that starts nothing."""
    capsys.readouterr()
    assert main(["run", *asked]) == 2
    printed = capsys.readouterr()
    return " ".join((printed.out + printed.err).split())


def test_an_absent_server_is_told_before_anything_starts(
    server: TritonServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = words(server, tmp_path, "triton.url=grpc://127.0.0.1:9")
    said = refusal(capsys, asked)
    assert "no Triton server answers: grpc://127.0.0.1:9: " in said
    assert "Is it running, and is this its gRPC port?" in said
    assert not (tmp_path / "out").exists()


def test_an_http_port_is_no_grpc_port(
    server: TritonServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = refusal(capsys, words(server, tmp_path, f"triton.url=grpc://{server.http}"))
    assert f"no Triton server answers: grpc://{server.http}: " in said
    assert "is this its gRPC port?" in said


def test_a_model_that_is_not_there_is_told_with_those_that_are(
    server: TritonServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = refusal(capsys, words(server, tmp_path, "triton.model=nope"))
    assert f"grpc://{server.grpc} has not loaded a model 'nope', and cannot be told to (" in said
    assert f"its repository has {MODEL}; load it there, or give triton.model=" in said


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (
            ("imagemill_signature", "something"),
            "was not exported by ImageMill: it has no parameter",
        ),
        (
            (
                'key: "imagemill_signature" value { string_value: "2"',
                'key: "imagemill_signature" value { string_value: "7"',
            ),
            "has signature 7; this client expected 2: server and client are of different versions",
        ),
        (
            ('"seed" data_type: TYPE_INT64', '"seed" data_type: TYPE_INT32'),
            "has the input 'seed' of type INT32 and dims [1]; expected the input 'seed' of type "
            "INT64 and dims [1]",
        ),
    ],
    ids=["not ours", "version skew", "wrong signature"],
)
def test_a_model_that_does_not_fit_is_told_with_what_was_expected(
    triton: None,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    edit: tuple[str, str],
    message: str,
) -> None:
    repository = write_repository(tmp_path / "models")
    file = repository / MODEL / "config.pbtxt"
    text = file.read_text()
    assert edit[0] in text
    file.write_text(text.replace(*edit))
    with TritonServer(tmp_path / "server", repository) as server:
        said = refusal(capsys, words(server, tmp_path))
    assert message in said
    assert "write the repository anew with 'imagemill triton export'" in said


def test_a_plan_says_who_would_make_the_images(
    server: TritonServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert main(["plan", *words(server, tmp_path)]) == 0
    said = capsys.readouterr().out
    assert (
        f"engine    triton: {MODEL} on grpc://{server.grpc}, dynamic batching, batches of up to 4, "
        "1 at a time on a server" in said
    )
