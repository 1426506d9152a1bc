"""An overlay as Kustomize renders it."""

from __future__ import annotations

import shutil
import subprocess
import sysconfig
from collections.abc import Sequence
from pathlib import Path

from conf.errors import ConfigError
from k8s.lint.manifest import Manifest, parse

ROOT = Path(__file__).parents[1]
_PROGRAMS = (("kustomize", ("build",)), ("kubectl", ("kustomize",)))
_WAIT_S = 60


def overlays() -> tuple[str, ...]:
    """The folders that can be applied, below k8s/."""
    found = [*(ROOT / "overlays").iterdir(), *(ROOT / "examples").iterdir()]
    return tuple(
        sorted(str(one.relative_to(ROOT)) for one in found if (one / "kustomization.yaml").exists())
    )


def render(folder: Path) -> tuple[Manifest, ...]:
    """The objects of a folder with a kustomization.yaml.

    Raises:
        ConfigError: there is no Kustomize, or it refuses the folder.
    """
    command = [*kustomize(), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=_WAIT_S, check=False)
    if done.returncode:
        raise ConfigError(f"{' '.join(command)} failed: {done.stderr.strip()}")
    return parse(done.stdout)


def kustomize() -> Sequence[str]:
    """The command that renders, of kustomize or kubectl, beside our Python or on the PATH.

    Raises:
        ConfigError: neither is there.
    """
    beside = sysconfig.get_path("scripts")
    for path in (beside, None):
        for program, arguments in _PROGRAMS:
            found = shutil.which(program, path=path)
            if found:
                return (found, *arguments)
    raise ConfigError(
        "neither kubectl nor kustomize is on the PATH; 'make k8s' fetches kubectl into .venv, or "
        "install one of them"
    )
