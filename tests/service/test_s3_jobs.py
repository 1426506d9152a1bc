"""Whole jobs with input and output on S3, as a user runs them from the command line."""

from __future__ import annotations

import io
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cluster.input_files import InputFiles
from cluster.store import Store
from cluster.store_access import LOOK_S, Access
from conf.errors import InputChanged, InputError
from jobs.cli import main
from jobs.finish import finish
from jobs.open_job import open_job
from jobs.verify import verify
from tests.cluster.job_process import JobProcess
from tests.seaweedfs import FULL, READ_ONLY, UNKNOWN_KEY, WRONG_SECRET, Identity, SeaweedFS
from tests.small_jobs import prepare_small_job, work_on
from tests.stores import ONCE, walk

SIMULATED = ("engine=simulated", "engine.simulated_speed=0", "input.shard_rows=8")


def parquet(rows: int) -> bytes:
    file = io.BytesIO()
    pq.write_table(pa.table({"prompt": [f"a red circle {n}" for n in range(rows)]}), file)
    return file.getvalue()


@pytest.fixture
def folder(s3_url: str) -> str:
    """A folder on S3 with prompts."""
    store = Store(s3_url, ONCE)
    store.put("prompts/a.parquet", parquet(12))
    store.put("prompts/b.parquet", parquet(4))
    store.put("prompts/_not_me.parquet", b"")
    store.put("p.csv", b"prompt\na blue square\na red circle\n")
    return s3_url


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    """A command that starts no worker, in this process."""
    capsys.readouterr()
    status = main(arguments)
    printed = capsys.readouterr()
    return status, printed.out + printed.err


def test_a_job_from_s3_to_s3_from_the_command_line(
    folder: str,
    seaweedfs: SeaweedFS,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = (
        f"input.path={folder}/prompts/*.parquet",
        f"output.path={folder}/out",
        "storage.patience_s=77",
        *SIMULATED,
    )
    status, text = run(capsys, "plan", *asked)
    assert status == 0, text
    assert "16 rows in 2 files" in text
    assert Store(folder, ONCE).folders("") == ["prompts"]
    job = JobProcess("run", *asked)
    assert job.finish() == 0, job.output
    assert f"output     {folder}/out" in job.output
    for command, says in (
        ("status", "16 committed, 0 quarantined, 0 pending"),
        ("resume", "nothing was left to do"),
        ("verify", "everything is there, once"),
        ("gc", "0 objects"),
        ("report", f"wrote {folder}/out/report.html"),
    ):
        status, text = run(capsys, command, f"{folder}/out")
        assert status == 0, text
        assert says in " ".join(text.split())
    record = Store(f"{folder}/out", ONCE).get("job.json") or b""
    assert FULL.secret_key.encode() not in record
    assert FULL.access_key.encode() not in record
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    anew, store = open_job(f"{folder}/out", [f"storage.endpoint_url={seaweedfs.endpoint_url}"])
    assert anew.config.storage.endpoint_url == seaweedfs.endpoint_url
    assert (anew.config.storage.patience_s, store.patience_s) == (77, LOOK_S)


@pytest.mark.parametrize("output_format", ["webdataset", "parquet"])
def test_images_in_containers_on_s3_are_verified(
    folder: str, output_format: str, tmp_path: Path
) -> None:
    overrides = {"output.path": f"{folder}/out", "output.format": output_format}
    small = work_on(prepare_small_job(tmp_path, [{"prompt": "a"}, {"prompt": "b"}], **overrides))
    assert small.totals().committed == 2
    finish(small.store, small.job, small.plan, generation=0, end=None, wall_s=0.0)
    assert verify(small.store).problems == ()


@pytest.mark.parametrize(
    ("identity", "sentence"),
    [
        (WRONG_SECRET, "the secret key does not belong to the access key"),
        (UNKNOWN_KEY, "the store does not know the access key"),
        (READ_ONLY, "these credentials may not write there"),
    ],
)
def test_keys_that_will_not_do_are_refused_before_anything_starts(
    folder: str,
    identity: Identity,
    sentence: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "p.parquet").write_bytes(parquet(4))
    asked = ("run", f"input.path={tmp_path}/p.parquet", f"output.path={folder}/out", *SIMULATED)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", identity.access_key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", identity.secret_key)
    status, text = run(capsys, *asked)
    assert (status, text.count("\n")) == (2, 1)
    assert sentence in text
    assert identity.secret_key not in text
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", FULL.access_key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", FULL.secret_key)
    assert list(walk(Store(f"{folder}/out", ONCE), "")) == []


@pytest.mark.parametrize(
    ("output", "more", "sentence"),
    [
        ("s3://no-such-bucket/out", (), "the bucket does not exist; create it"),
        ("s3://images/out", ("storage.profile=nobody",), "names no profile"),
        (
            "s3://images/out",
            ("storage.endpoint_url=http://127.0.0.1:9", "storage.patience_s=0.5"),
            "the store cannot be reached",
        ),
    ],
)
def test_an_output_that_cannot_be_is_refused_before_anything_starts(
    folder: str,
    output: str,
    more: tuple[str, ...],
    sentence: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "p.parquet").write_bytes(parquet(4))
    asked = (f"input.path={tmp_path}/p.parquet", f"output.path={output}", *more, *SIMULATED)
    status, text = run(capsys, "run", *asked)
    assert (status, text.count("\n")) == (2, 1)
    assert sentence in text
    status, text = run(capsys, "status", output, *more)
    assert status == 2
    assert sentence in text
    assert "How to reach the store cannot be read from the job, which lies in it" in text


def test_csv_on_s3_is_staged_into_the_output(folder: str, tmp_path: Path) -> None:
    overrides = {"input.path": f"{folder}/p.csv", "output.path": f"{folder}/out"}
    small = work_on(prepare_small_job(tmp_path, [], **overrides))
    assert small.totals().committed == 2


@pytest.fixture
def files() -> InputFiles:
    return InputFiles(access=Access(), store=Store("memory://unused", ONCE))


def test_a_folder_a_file_and_a_pattern_are_found_on_s3(folder: str, files: InputFiles) -> None:
    both = [f"{folder}/prompts/a.parquet", f"{folder}/prompts/b.parquet"]
    assert files.expand(f"{folder}/prompts") == both
    assert files.expand(f"{folder}/prompts/?.parquet") == both
    assert files.expand(both[1]) == both[1:]
    Store(folder, ONCE).put("prompts/c.parquet", parquet(1))
    assert len(files.expand(f"{folder}/prompts")) == 3


@pytest.mark.parametrize(
    ("path", "sentence"),
    [
        ("s3://no-such-bucket/p.parquet", "the bucket does not exist"),
        ("s3://images/nowhere.parquet", "does not exist"),
        ("s3://images/nowhere/*.parquet", "matches no file"),
    ],
)
@pytest.mark.usefixtures("folder")
def test_input_that_is_not_there_is_told(path: str, sentence: str, files: InputFiles) -> None:
    with pytest.raises(InputError, match=sentence):
        files.expand(path)


def test_input_that_may_not_be_read_is_told(
    folder: str, monkeypatch: pytest.MonkeyPatch, files: InputFiles
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", WRONG_SECRET.secret_key)
    for path in (f"{folder}/prompts/a.parquet", f"{folder}/prompts", f"{folder}/prompts/*"):
        with pytest.raises(InputError, match=r"^cannot read s3://.*the secret key does not belong"):
            files.expand(path)


def test_input_that_changes_while_it_is_read_is_told(folder: str, files: InputFiles) -> None:
    path, store = f"{folder}/large.bin", Store(folder, ONCE)
    store.put("large.bin", b"a" * 3_000_000)
    before = files.fingerprint(path)
    with files.open(path) as file:
        assert file.read(5) == b"aaaaa"
        store.put("large.bin", b"b" * 3_000_000)
        with pytest.raises(InputChanged, match=r"large\.bin changed while it was read"):
            file.read()
    assert files.fingerprint(path) != before
    store.delete("large.bin")
    with pytest.raises(InputChanged, match=r"large\.bin is gone"):
        files.fingerprint(path)
