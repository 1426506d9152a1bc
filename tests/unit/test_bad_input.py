"""What a user reads when a job cannot start: one clear line, exit status 2, and nothing written."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs.cli import main

GOOD = [{"prompt": "a red circle", "id": "one"}]


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "out"


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    return write(tmp_path / "prompts.parquet", GOOD)


def write(path: Path, rows: list[dict[str, object]]) -> Path:
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path


class Refusal:
    """Runs a job that must be refused; keeps what the user reads."""

    def __init__(self, output: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self._output = output
        self._capsys = capsys

    def of(self, source: object, *more: str, engine: str = "simulated") -> str:
        status = main(
            [
                "run",
                f"input.path={source}",
                f"output.path={self._output}",
                f"engine={engine}",
                *more,
            ]
        )
        printed = self._capsys.readouterr()
        assert status == 2, printed
        assert printed.out == ""
        (line,) = printed.err.strip().splitlines()
        assert line.startswith("imagemill: ")
        return line.removeprefix("imagemill: ")


@pytest.fixture
def refusal(output: Path, capsys: pytest.CaptureFixture[str]) -> Iterator[Refusal]:
    yield Refusal(output, capsys)
    left = [p for p in output.rglob("*") if p.is_file()] if output.is_dir() else []
    assert left == [], "a refused job left something behind"


def test_a_missing_file_is_named(refusal: Refusal, tmp_path: Path) -> None:
    message = refusal.of(tmp_path / "absent.parquet")
    assert str(tmp_path / "absent.parquet") in message


def test_a_glob_that_matches_nothing_is_named(refusal: Refusal, tmp_path: Path) -> None:
    assert "*.parquet" in refusal.of(tmp_path / "none" / "*.parquet")


def test_no_prompt_column_names_the_columns_and_the_key_that_maps_one(
    refusal: Refusal, tmp_path: Path
) -> None:
    message = refusal.of(write(tmp_path / "captions.parquet", [{"caption": "x", "n": 1}]))
    assert "captions.parquet has no column 'prompt'" in message
    assert "caption" in message
    assert "input.columns.prompt=caption" in message


def test_a_mapped_column_that_is_absent_is_named(refusal: Refusal, prompts: Path) -> None:
    assert "'text'" in refusal.of(prompts, "input.columns.prompt=text")


@pytest.mark.parametrize("content", [b"", b"PAR1 but not for long", b"plain words\n" * 40])
def test_a_file_that_is_no_parquet_is_named(
    refusal: Refusal, tmp_path: Path, content: bytes
) -> None:
    broken = tmp_path / "broken.parquet"
    broken.write_bytes(content)
    assert "broken.parquet" in refusal.of(broken)


def test_a_truncated_parquet_is_named(refusal: Refusal, prompts: Path) -> None:
    prompts.write_bytes(prompts.read_bytes()[:-20])
    assert "prompts.parquet" in refusal.of(prompts)


@pytest.mark.parametrize(
    ("given", "nearest"),
    [
        ("job.nmae=x", "job.name"),
        ("jbo.name=x", "job.name"),
        ("output.fromat=files", "output.format"),
        ("sampling.step=3", "sampling.steps"),
        ("cluster.worker=2", "cluster.workers"),
    ],
)
def test_an_unknown_key_names_the_nearest(
    refusal: Refusal, prompts: Path, given: str, nearest: str
) -> None:
    message = refusal.of(prompts, given)
    assert given.partition("=")[0] in message
    assert nearest in message


@pytest.mark.parametrize(
    ("given", "parts"),
    [
        ("output.format=zip", ["output.format", "'zip'", "webdataset"]),
        ("output.image=gif", ["output.image", "png"]),
        ("output.quality=101", ["output.quality", "100"]),
        ("job.commit_images=0", ["job.commit_images", "at least 1"]),
        ("job.max_quarantined=2", ["job.max_quarantined", "0 to 1"]),
        ("job.seed=abc", ["job.seed", "whole number"]),
        ("cluster.workers=0", ["cluster.workers", "at least 1"]),
        ("cluster.lease_s=2", ["cluster.lease_s", "cluster.heartbeat_s"]),
        ("sampling.sampler=magic", ["sampling.sampler", "'magic'", "euler"]),
        ("pricing.price_per_hour=free", ["pricing.price_per_hour", "'free'"]),
        ("pricing=aws", ["pricing.book=aws", "local"]),
        ("model=magic", ["model=magic", "shapes", "model=/path"]),
        ("engine=vllm", ["engine=vllm", "stepwise"]),
        ("quickly", ["'quickly'", "key=value"]),
        ("job.commit_seconds=[1", ["cannot read 'job.commit_seconds=[1'", "each bracket"]),
        ("output=x", ["'output' is a group of keys: output.path, output.format", "one by one"]),
        ("input.columns=x", ["'input.columns' is a group", "input.columns.id", "and 6 more"]),
        ("job.tags=x", ["job.tags is no key itself; expected job.tags.NAME=VALUE"]),
        (
            "triton.headers={a:B}",
            ["triton.headers is no key itself; expected triton.headers.NAME="],
        ),
        ("jbo=x", ["did you mean job.…?"]),
        ("input.pth=x", ["did you mean input.path or output.path"]),
    ],
)
def test_a_wrong_value_names_the_key_and_what_is_expected(
    refusal: Refusal, prompts: Path, given: str, parts: list[str]
) -> None:
    message = refusal.of(prompts, given)
    assert [part for part in parts if part not in message] == []


def test_a_path_that_was_not_given_is_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "output.path=somewhere"]) == 2
    assert "input.path is not set; give it as input.path=" in capsys.readouterr().err


def test_an_absent_model_folder_is_named(refusal: Refusal, prompts: Path, tmp_path: Path) -> None:
    message = refusal.of(prompts, f"model={tmp_path}/absent", engine="stepwise")
    assert f"{tmp_path}/absent" in message
    assert "model.path" in message


def test_an_incomplete_model_folder_is_named(
    refusal: Refusal, prompts: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    assert "model_index.json" in refusal.of(prompts, f"model={folder}", engine="stepwise")


def test_duplicate_ids_name_both_places(refusal: Refusal, tmp_path: Path) -> None:
    rows = [{"prompt": "x", "id": label} for label in ("a", "b", "a")]
    message = refusal.of(write(tmp_path / "twice.parquet", rows), "input.unique_ids=true")
    assert "'a'" in message
    assert "row 0" in message
    assert "row 2" in message


def test_an_output_that_holds_other_things_is_not_touched(
    prompts: Path, output: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output.mkdir()
    (output / "README.md").write_text("mine")
    status = main(["run", f"input.path={prompts}", f"output.path={output}", "engine=simulated"])
    assert status == 2
    message = capsys.readouterr().err
    assert "README.md" in message
    assert "choose a new folder" in message
    assert [p.name for p in output.iterdir()] == ["README.md"]
    assert (output / "README.md").read_text() == "mine"


def test_an_output_below_a_file_is_refused(
    prompts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = prompts / "out"
    assert main(["run", f"input.path={prompts}", f"output.path={output}", "engine=simulated"]) == 2
    assert "output.path" in capsys.readouterr().err


def test_a_read_only_target_is_refused(prompts: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = "/proc/imagemill"
    assert main(["run", f"input.path={prompts}", f"output.path={output}", "engine=simulated"]) == 2
    message = capsys.readouterr().err
    assert "/proc/imagemill" in message
    assert "output.path" in message


def test_a_dry_run_counts_and_writes_nothing(
    tmp_path: Path, output: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [
        {"prompt": "one", "width": 64, "steps": 5},
        {"prompt": "two", "width": 128, "steps": 9},
        {"prompt": " ", "width": 64, "steps": 5},
    ]
    source = write(tmp_path / "prompts.parquet", rows)
    arguments = [f"input.path={source}", f"output.path={output}", "engine=simulated"]
    assert main(["run", "--dry-run", *arguments]) == 0
    text = capsys.readouterr().out
    assert "SIMULATED" in text
    assert "64 x 64: 1 image" in text
    assert "128 x 64: 1 image" in text
    assert "empty_prompt" in text
    assert "nothing was written" in text
    assert not output.exists()
    assert main(["plan", *arguments]) == 0
    assert capsys.readouterr().out == text
    output.mkdir()
    (output / "mine.txt").write_text("x")
    assert main(["plan", *arguments]) == 2
    assert "a run would be refused: output.path" in capsys.readouterr().out


def test_cfg_prints_the_composed_configuration(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "--cfg", "job.name=cats", "job.tags.season=winter"]) == 0
    text = capsys.readouterr().out
    assert "name: cats" in text
    assert "season: winter" in text


@pytest.mark.parametrize(
    "command", ["status", "resume", "cancel", "retry", "verify", "gc", "report"]
)
def test_a_command_on_no_job_says_so(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([command, str(tmp_path)]) == 2
    message = capsys.readouterr().err
    assert f"no job at {tmp_path}: it has no job.json; expected the output.path of a job" in message
    assert main([command, str(tmp_path / "gone")]) == 2
    assert "/gone: nothing is there; expected" in capsys.readouterr().err


def test_the_help_names_all_commands_and_starts_without_torch() -> None:
    probe = (
        "import sys; from jobs.cli import main; import atexit\n"
        "atexit.register(lambda: print('torch' in sys.modules))\nmain(['--help'])"
    )
    run = subprocess.run(
        [sys.executable, "-c", probe],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[2],
    )
    assert "verify" in run.stdout
    assert run.stdout.strip().endswith("False")
