"""The environment in which a real tritonserver runs, apart from ours: numpy 1 there, pyarrow here.

The Makefile says what is in it; this finds its programs. The server comes from the wheel
nvidia-pytriton.
"""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
ENVIRONMENT = ROOT / ".venv-triton"
_READY = ENVIRONMENT / ".ready"
_SYSTEM = Path("/usr/bin")
"""Its libraries are found without being named."""
_STUB = "triton_python_backend_stub"
_BACKEND_FILES = ("libtriton_python.so", "triton_python_backend_utils.py")


def ensure() -> None:
    """Make the environment if it is not there or not up to date; others wait meanwhile.

    Raises:
        RuntimeError: it could not be made; the message ends with what make said.
    """
    with (ROOT / ".venv-triton.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = subprocess.run(
            ["make", f"PYTHON={sys.executable}", str(_READY.relative_to(ROOT))],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
    if done.returncode:
        raise RuntimeError(f"no environment for Triton: {done.stdout}{done.stderr}")


def server() -> Path:
    """The server's program.

    Raises:
        RuntimeError: the environment has none.
    """
    found = next(ENVIRONMENT.glob("lib/python*/site-packages/pytriton/tritonserver"), None)
    if found is None:
        raise RuntimeError(f"{ENVIRONMENT} holds no tritonserver; make it with: make triton")
    return found / "bin" / "tritonserver"


def backends() -> Path:
    """The folder with the python backend, for the Python of this environment.

    Its files are links: a copy would not find its libraries.
    """
    home = server().parents[1]
    version = home.parents[2].name.removeprefix("python")
    sources = [home / "backends" / "python" / name for name in _BACKEND_FILES]
    sources.append(home / "python_backend_stubs" / version / _STUB)
    folder = ENVIRONMENT / "backends" / "python"
    folder.mkdir(parents=True, exist_ok=True)
    for source in sources:
        _link(source, folder / source.name)
    return folder.parent


def variables() -> dict[str, str]:
    """The environment variables of the server.

    Its models run in the libpython that the loader finds, with the modules of the first Python on
    the PATH; both must be the one that the environment was made from.

    Raises:
        RuntimeError: that Python has no shared library.
    """
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    kept |= {"VIRTUAL_ENV": str(ENVIRONMENT), "PATH": _before(ENVIRONMENT / "bin", "PATH")}
    home = next(
        Path(line.partition("=")[2].strip())
        for line in (ENVIRONMENT / "pyvenv.cfg").read_text().splitlines()
        if line.startswith("home")
    )
    libraries = home.parent / "lib"
    if any(libraries.glob("libpython3.*.so.1.0")):
        kept["LD_LIBRARY_PATH"] = _before(libraries, "LD_LIBRARY_PATH")
    elif home != _SYSTEM:
        raise RuntimeError(
            f"the Python in {home} has no libpython3.*.so.1.0 in {libraries}, in which Triton runs "
            f"its models; remove {ENVIRONMENT} and make it with another: make triton "
            "PYTHON=/usr/bin/python3 (Debian: python3-venv and libpython3.11)"
        )
    return kept


def is_stub(pid: int) -> bool:
    """Whether the process is one in which a model runs."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return False
    return words[0].endswith(_STUB.encode())


def _before(folder: Path, variable: str) -> str:
    """The list of folders in a variable, with another in front."""
    others = os.environ.get(variable)
    return f"{folder}{os.pathsep}{others}" if others else str(folder)


def _link(source: Path, target: Path) -> None:
    if not target.exists():
        target.unlink(missing_ok=True)
        target.symlink_to(source)
