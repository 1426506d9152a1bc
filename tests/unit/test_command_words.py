"""What a user reads of words that are no command, no option or no key."""

from __future__ import annotations

from pathlib import Path

import pytest

from jobs.cli import main


def refused(words: list[str], capsys: pytest.CaptureFixture[str]) -> list[str]:
    """The lines of a command line that argparse refuses: usage, then the error."""
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 2
    return capsys.readouterr().err.splitlines()


def test_keys_may_stand_after_options(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = [f"input.path={tmp_path}", "--cfg", f"output.path={tmp_path}", "-v", "job.project=shop"]
    assert main(["run", *given]) == 0
    assert "project: shop" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "whose", "said"),
    [
        (["run", "--nosuch", "a=b"], "run", "unrecognized arguments: --nosuch"),
        (["run", "a=b", "--dryrun"], "run", "unrecognized arguments: --dryrun; did you mean --dr"),
        (["run", "--resum=x"], "run", "argument --resume: ignored explicit argument 'x'"),
        (["gc", "out", "--delte"], "gc", "unrecognized arguments: --delte; did you mean --delete?"),
        (["models", "a=b"], "models", "unrecognized arguments: a=b"),
        (["triton", "exprt"], "triton", "there is no command 'exprt'; did you mean export?"),
    ],
)
def test_words_that_a_command_does_not_know_are_named_with_its_usage(
    words: list[str], whose: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    usage, *_, error = refused(words, capsys)
    assert usage.startswith(f"usage: imagemill {whose} ")
    assert error.startswith(f"imagemill {whose}: error: {said}")


def test_a_command_that_is_misspelt_is_told_from_one_that_is_near_to_none(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert refused(["statsu", "out"], capsys)[-1] == (
        "imagemill: error: there is no command 'statsu'; did you mean status?"
    )
    assert refused(["ls"], capsys)[-1] == (
        "imagemill: error: there is no command 'ls'; see 'imagemill --help'"
    )


@pytest.mark.parametrize("command", ["status", "resume", "retry", "verify", "gc", "report"])
def test_only_what_is_needed_is_asked_for(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    error = refused([command], capsys)[-1]
    assert error == f"imagemill {command}: error: the following arguments are required: OUTPUT"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ["status", "a", "b"],
            "'b' is no key=value; 'imagemill status' takes one OUTPUT",
        ),
        (["resume", "a", "b"], "'b' is no key=value; expected one OUTPUT, then keys"),
        (["verify", "a", "job.name=x"], "tells or does; it takes storage.* keys; leave it out\n"),
        (["report", "a", "cluster.workers=2"], "leave it out, or give it to imagemill resume\n"),
        (
            ["resume", "a", "job.name=x"],
            "has begun; expected cluster.* or storage.* or ",
        ),
    ],
)
def test_a_key_that_a_command_does_not_take_is_refused_before_anything_is_looked_at(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 2
    assert said in capsys.readouterr().err


def test_a_file_has_no_costs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "job.json").write_text("{}")
    assert main(["cost", str(tmp_path / "job.json")]) == 2
    assert "job.json is a file; expected a folder: the output.path of a job" in (
        capsys.readouterr().err
    )


@pytest.mark.parametrize(
    "words",
    [
        ["submit", "--render", "/no/such.yaml"],
        ["prices", "import", "/no/such.yaml", "b.yaml", "--provider", "aws", "--version", "1"],
    ],
)
def test_a_file_that_is_absent_is_named_once(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [f"input.path={tmp_path}", f"output.path={tmp_path}"] if words[0] == "submit" else []
    assert main([*words, *given]) == 2
    assert capsys.readouterr().err.endswith("/no/such.yaml: No such file or directory\n")
