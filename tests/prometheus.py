"""A real Prometheus and its promtool for tests, from Debian's package, without installing it.

``python -m tests.prometheus`` fetches the package (about 15 MB) into build/prometheus, as
``make test`` does. Where that cannot be done the tests that need it are skipped and say so.
"""

from __future__ import annotations

import json
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import yaml

HERE = Path(__file__).parents[1] / "build" / "prometheus"
_READY_S = 60.0
_STOP_S = 15.0
_FETCH_S = 60.0
_ANSWER_S = 10.0
MISSING = (
    "there is no {name}: neither on the PATH nor in build/prometheus. 'python -m tests.prometheus' "
    "fetches it from Debian's package; elsewhere install Prometheus"
)


class NotToBeHad(Exception):
    """The package cannot be fetched here, and why."""


def program(name: str) -> Path | None:
    """``prometheus`` or ``promtool``, from the PATH or as it was fetched."""
    fetched = HERE / "usr" / "bin" / name
    if fetched.exists():
        return fetched
    found = shutil.which(name)
    return Path(found) if found else None


def fetch() -> None:
    """Have both programs in build/prometheus, unless they are to be had already.

    Raises:
        NotToBeHad: no apt-get, no network, no such package.
    """
    if program("prometheus") and program("promtool"):
        return
    with tempfile.TemporaryDirectory() as folder:
        try:
            _run("apt-get", "download", "prometheus", folder=folder)
        except NotToBeHad:
            _run("apt-get", "update", folder=folder)
            _run("apt-get", "download", "prometheus", folder=folder)
        (package,) = Path(folder).glob("prometheus_*.deb")
        _run("dpkg-deb", "-x", str(package), "unpacked", folder=folder)
        HERE.parent.mkdir(exist_ok=True)
        shutil.rmtree(HERE, ignore_errors=True)
        shutil.move(Path(folder) / "unpacked", HERE)


def _run(*command: str, folder: str) -> None:
    try:
        done = subprocess.run(
            command, cwd=folder, capture_output=True, text=True, timeout=_FETCH_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NotToBeHad(f"{' '.join(command)}: {error}") from error
    if done.returncode:
        raise NotToBeHad(f"{' '.join(command)}: {done.stderr.strip()}")


class Prometheus:
    """A server of its own that scrapes ``targets`` (host:port) every ``every_s`` and watches
    ``rules``, a file with groups. It dies with ``stop``."""

    def __init__(
        self, folder: Path, targets: Sequence[str], *, rules: Path | None = None, every_s: int = 1
    ) -> None:
        self._folder = folder
        self._port = _free_port()
        self._config: dict[str, Any] = {
            "global": {
                "scrape_interval": f"{every_s}s",
                "scrape_timeout": f"{every_s}s",
                "evaluation_interval": f"{every_s}s",
            },
            "rule_files": [str(rules)] if rules else [],
            "scrape_configs": [{"job_name": "ray", "static_configs": [{"targets": [*targets]}]}],
        }
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        binary = program("prometheus")
        if binary is None:
            raise NotToBeHad(MISSING.format(name="prometheus"))
        self._folder.mkdir(parents=True, exist_ok=True)
        config = self._folder / "prometheus.yaml"
        config.write_text(yaml.safe_dump(self._config))
        command = [
            str(binary),
            f"--config.file={config}",
            f"--storage.tsdb.path={self._folder / 'data'}",
            f"--web.listen-address=127.0.0.1:{self._port}",
        ]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            self._wait_until_ready()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_error: object) -> None:
        self.stop()

    def stop(self) -> None:
        """End it."""
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def query(self, expr: str) -> list[dict[str, Any]]:
        """The samples of an instant query: metric (labels) and value (time, text)."""
        found: list[dict[str, Any]] = self._get("query", query=expr)["result"]
        return found

    def alerts(self) -> list[dict[str, Any]]:
        """The pending and firing alerts, with their labels and annotations."""
        found: list[dict[str, Any]] = self._get("alerts")["alerts"]
        return found

    @property
    def _log(self) -> Path:
        return self._folder / "log"

    def _get(self, what: str, **words: str) -> Any:
        url = f"http://127.0.0.1:{self._port}/api/v1/{what}?{urllib.parse.urlencode(words)}"
        try:
            with urllib.request.urlopen(url, timeout=_ANSWER_S) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{words}: {error.read().decode()}") from error

    def _wait_until_ready(self) -> None:
        deadline_s = time.monotonic() + _READY_S
        while not self._ready():
            assert self._process is not None
            if self._process.poll() is not None or time.monotonic() > deadline_s:
                raise RuntimeError(
                    f"Prometheus is not ready; its log ends: {self._log.read_text()[-2000:]}"
                )
            time.sleep(0.05)

    def _ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self._port}/-/ready", timeout=1):
                return True
        except OSError:
            return False


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def main() -> int:
    """Fetch; a machine on which it cannot be had is told so and is no failure."""
    try:
        fetch()
    except NotToBeHad as error:
        print(f"no Prometheus, so tests of alerts are skipped: {error}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
