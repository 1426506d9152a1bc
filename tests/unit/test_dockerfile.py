"""The image's recipe: what can be held against it without a Docker engine."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
from collections.abc import Iterator, Mapping
from importlib.metadata import requires
from itertools import chain
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
RECIPE = ROOT / "Dockerfile"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
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


def test_the_package_is_built_by_what_is_pinned() -> None:
    """A build of its own fetches the newest of what ``[build-system]`` asks for."""
    asked = {Requirement(text).name for text in PROJECT["build-system"]["requires"]}
    assert asked <= pinned()
    (run,) = [rest for word, rest in stages()["wheel"][1] if word == "RUN"]
    _, install, build = run.split(" && ")
    assert install.endswith(f"pip install --constraint /constraints.txt {' '.join(asked)}")
    assert "pip wheel --no-build-isolation " in build


def test_everything_that_is_installed_has_its_exact_version() -> None:
    """Whatever our packages ask for, and what these ask for, with all extras."""
    project = PROJECT["project"]
    extras = project["optional-dependencies"]
    asked = [Requirement(text) for text in chain(project["dependencies"], *extras.values())]
    seen: set[tuple[str, frozenset[str]]] = set()
    while asked:
        one = asked.pop()
        key = (canonicalize_name(one.name), frozenset(one.extras))
        if key in seen:
            continue
        seen.add(key)
        for text in requires(one.name) or []:
            more = Requirement(text)
            if more.marker is None or any(
                more.marker.evaluate({"extra": extra}) for extra in ("", *one.extras)
            ):
                asked.append(more)
    assert {name for name, _ in seen} - pinned() == set()


def pinned() -> set[str]:
    """The names in constraints.txt, as packages spell them."""
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    found = (line.partition("==") for line in lines if not line.startswith("#"))
    return {canonicalize_name(name) for name, exactly, version in found if exactly and version}


def test_a_second_index_gives_what_is_named_and_nothing_else() -> None:
    """Beside an index that is only added, whoever puts a higher version of any name there wins."""
    assert "--extra-index-url" not in RECIPE.read_text()
    commands = [
        command
        for word, rest in instructions()
        if word == "RUN"
        for command in rest.split("&&")
        if "--index-url" in command
    ]
    assert len(commands) == 1
    assert "--no-deps" in commands[0]
    assert "torch==" in commands[0]


def run_of(stage: str, places: Mapping[str, Path], cwd: Path) -> None:
    """Carry out a stage's RUN instructions here, with other folders in the place of the image's."""
    here = sorted(places.items(), key=lambda item: -len(item[0]))
    for word, rest in stages()[stage][1]:
        if word == "RUN":
            for there, folder in here:
                rest = re.sub(rf"(?<![\w/]){there}", str(folder), rest)
            shell = ["bash", "-o", "pipefail", "-c", rest]
            done = subprocess.run(shell, cwd=cwd, capture_output=True, text=True, check=False)
            assert done.returncode == 0, f"{rest}\n{done.stderr}"


def test_the_recipe_makes_a_package_that_runs_and_a_list_of_what_is_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its steps in fresh venvs, but for the install of torch and Ray, which takes minutes: what is
    installed here stands in for them."""
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    places = {
        "/wheels": tmp_path / "wheels",
        "/opt/lister": tmp_path / "lister",
        "/opt/build": tmp_path / "build",
        "/constraints.txt": ROOT / "constraints.txt",
        "/opt/venv": tmp_path / "venv",
        "/sbom": tmp_path / "sbom",
    }
    source = tmp_path / "src"
    for word, rest in stages()["wheel"][1]:
        if word == "COPY" and rest.split()[-1] not in places:
            *copied, target = rest.split()
            for name in copied:
                here, there = (
                    ROOT / name,
                    source / target.rstrip("/") / ("" if "/" in name else name),
                )
                there.parent.mkdir(parents=True, exist_ok=True)
                if here.is_dir():
                    shutil.copytree(here, there, ignore=shutil.ignore_patterns("__pycache__"))
                else:
                    shutil.copy(here, there)
    run_of("wheel", places, source)
    venv = places["/opt/venv"]
    (wheel,) = places["/wheels"].glob("imagemill-*.whl")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", venv], check=True)
    pip = [sys.executable, "-m", "pip", "--python", venv / "bin/python"]
    subprocess.run([*pip, "install", "-q", "--no-deps", wheel], check=True)
    (packages,) = venv.glob("lib/python*/site-packages")
    (packages / "rest.pth").write_text(sysconfig.get_path("purelib"))
    done = subprocess.run(
        [venv / "bin/imagemill", "models"], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert "shapes" in done.stdout
    run_of("lister", places, tmp_path)
    run_of("list-cpu", places, tmp_path)
    listed = json.loads((places["/sbom"] / "imagemill.cdx.json").read_text())
    assert listed["bomFormat"] == "CycloneDX"
    assert {"imagemill", "ray", "torch"} <= {one["name"] for one in listed["components"]}


def test_no_instruction_holds_a_secret_or_fetches_from_anywhere_else() -> None:
    for word, rest in instructions():
        assert word != "ADD"
        assert not re.search(r"(?i)(password|secret|token)=", rest), rest
        assert not re.search(r"\b(curl|wget)\s+\S*https?://", rest), rest
        found = re.findall(r"https?://([\w.]+)", rest)
        assert set(found) <= {"download.pytorch.org"}, rest
