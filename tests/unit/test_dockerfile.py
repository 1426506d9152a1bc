"""The image's recipe: what can be held against it without a Docker engine."""

from __future__ import annotations

import re
import shutil
import subprocess
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
RECIPE = ROOT / "Dockerfile"
TARGETS = ("cpu", "dev", "gpu")
Instruction = tuple[str, str]


def instructions() -> Iterator[Instruction]:
    """(word, rest) of each instruction, continued lines joined, comments left out."""
    text = re.sub(r"^\s*#.*\n", "", RECIPE.read_text(), flags=re.MULTILINE)
    for line in text.replace("\\\n", " ").splitlines():
        if line.strip():
            word, _, rest = line.strip().partition(" ")
            yield word, " ".join(rest.split())


def stages() -> dict[str, tuple[str, list[Instruction]]]:
    """Each stage by name: what it builds on, and its instructions."""
    found: dict[str, tuple[str, list[Instruction]]] = {}
    for word, rest in instructions():
        if word == "FROM":
            base, _, name = rest.partition(" AS ")
            here: list[Instruction] = []
            found[name] = (base, here)
        else:
            here.append((word, rest))
    return found


def lineage(name: str) -> list[Instruction]:
    """All instructions that make a stage, from the first base on."""
    base, own = stages()[name]
    return (lineage(base) if base in stages() else []) + own


def test_hadolint_finds_nothing() -> None:
    hadolint = shutil.which("hadolint", path=sysconfig.get_path("scripts"))
    assert hadolint, "install the extra 'dev'"
    done = subprocess.run([hadolint, str(RECIPE)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_every_stage_builds_on_another_on_nothing_or_on_an_exact_tag() -> None:
    bases = {base for base, _ in stages().values()} - set(stages()) - {"scratch"}
    assert bases
    assert [
        base for base in bases if not re.search(r":\d+\.\d+\.\d+[\w.-]*(@sha256:|$)", base)
    ] == []


@pytest.mark.parametrize("target", TARGETS)
def test_a_target_ends_as_the_user_that_the_pods_run_as(target: str) -> None:
    users = [rest for word, rest in lineage(target) if word == "USER"]
    assert users[-1] == "1000:1000"
    made = " ".join(rest for word, rest in lineage(target) if word == "RUN")
    assert "useradd --uid 1000 --gid 1000" in made


@pytest.mark.parametrize("target", TARGETS)
def test_a_target_holds_its_own_list_of_what_is_in_it(target: str) -> None:
    copied = [rest for word, rest in lineage(target) if word == "COPY"]
    assert [rest for rest in copied if rest.endswith("/sbom /usr/share/imagemill")]
    kind = "gpu" if target == "gpu" else "cpu"
    assert f"--from=install-{kind} /opt/venv /opt/venv" in copied
    assert f"--from=list-{kind} /sbom /usr/share/imagemill" in copied


def test_what_is_copied_is_there_and_the_docker_context_lets_it_in() -> None:
    allowed = {
        line.removeprefix("!")
        for line in (ROOT / ".dockerignore").read_text().splitlines()
        if line.startswith("!")
    }
    copied = [
        source
        for word, rest in instructions()
        if word == "COPY" and not rest.startswith("--from=")
        for source in rest.split()[:-1]
    ]
    assert copied
    for source in copied:
        assert (ROOT / source).exists(), source
        assert source.split("/")[0] in allowed, f".dockerignore keeps {source} out"
    packages = re.search(r"include = \[(.*)\]", (ROOT / "pyproject.toml").read_text())
    assert packages
    for name in re.findall(r'"(\w+)\*"', packages[1]):
        assert f"{name}/" in copied, f"the image lacks the package {name}"


def test_every_install_is_held_by_the_constraints_or_an_exact_version() -> None:
    installs = [
        command
        for word, rest in instructions()
        if word == "RUN"
        for command in rest.split("&&")
        if "pip install" in command
    ]
    assert len(installs) >= 4
    for command in installs:
        assert "--constraint /constraints.txt" in command or re.search(r"==\d", command), command


def test_no_instruction_holds_a_secret_or_fetches_from_anywhere_else() -> None:
    for word, rest in instructions():
        assert word != "ADD"
        assert not re.search(r"(?i)(password|secret|token)=", rest), rest
        assert not re.search(r"\b(curl|wget)\s+\S*https?://", rest), rest
        found = re.findall(r"https?://([\w.]+)", rest)
        assert set(found) <= {"download.pytorch.org"}, rest
