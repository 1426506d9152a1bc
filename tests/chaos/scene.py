"""One fault's surroundings: its input and output in the bucket, its rules, its drivers, its story.

A fault is written against this; it stages by what the proxy saw, never by time.
"""

from __future__ import annotations

import io
import json
import os
import random
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import Any, TypeVar

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
from botocore.exceptions import ClientError

from tests.chaos.bucket import Bucket, FolderBucket, S3Bucket, s3_client
from tests.chaos.driver import Driver
from tests.chaos.proxy import STAGE, Proxy
from tests.chaos.rules import Action, Answer, Asked, Hold, Match, Rule
from tests.chaos.stage import Stage, environment
from tests.chaos.traffic import Seen
from tests.cluster.job_process import wait_until
from tests.seaweedfs import FULL, SeaweedFS

T = TypeVar("T")
BUCKET = "images"
WAIT_S = 90.0
SETTINGS = (
    "engine=simulated",
    "sampling.width=16",
    "sampling.height=16",
    "cluster.workers=1",
    "input.shard_rows=8",
    "job.commit_images=4",
    "pricing.instance_type=local",
    "pricing.purchase_option=owned",
    "job.commit_seconds=0.2",
    "cluster.heartbeat_s=0.2",
    "cluster.lease_s=4",
)
"""Small images, small shards, and a lease that runs out while one looks on."""


def make_rows(count: int, seed: int) -> list[dict[str, Any]]:
    """Rows that differ in steps, so that a batch never ends all at once."""
    chance = random.Random(seed)
    return [
        {"prompt": f"number {n} of {seed}", "steps": chance.randint(2, 12), "seed": n}
        for n in range(count)
    ]


class Scene:
    """A context manager; at its end no rule is in force and nothing that it started lives.

    ``story`` tells how each run ended. The job must end with ``wanted_status`` and so many rows
    quarantined; ``same_images``: each image is byte for byte that of an undisturbed run; ``fenced``
    are keys of commits that landed too late to count; ``outlived``: a worker lives on after the
    manifest was written, so that the ledger comes to more than that.

    Args:
        name: also the folder of input and output in the bucket.
        stage: the store, the proxy before it and the cluster that is up.
    """

    def __init__(
        self,
        name: str,
        *,
        stage: Stage,
        rows: Sequence[Mapping[str, Any]],
    ) -> None:
        self.name = name
        self.stage = stage
        self.store = stage.store
        self.proxy = stage.proxy
        self.folder = stage.folder / name
        self.rows = rows
        self.address = stage.address
        self.story: list[str] = []
        self.status: int | None = None
        self.wanted_status = 0
        self.wanted_quarantined = 0
        self.same_images = True
        self.outlived = False
        self.fenced: list[str] = []
        self.settings = SETTINGS
        self.output = f"s3://{BUCKET}/{name}/out"
        self._drivers: list[Driver] = []
        self._folder: Path | None = None
        self._more = ExitStack()
        self._client = s3_client(stage.store.endpoint_url, FULL.access_key, FULL.secret_key)

    def __enter__(self) -> Scene:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.proxy.rules.clear()
        self.put_rows(self.rows)
        return self

    def __exit__(self, *_error: object) -> None:
        self.proxy.rules.clear()
        for driver in self._drivers:
            if driver.tree():
                driver.kill_all()
        self._more.close()

    def enter(self, context: AbstractContextManager[T]) -> T:
        """Enter what is to be left with the scene."""
        return self._more.enter_context(context)

    def move_to(self, store: SeaweedFS, proxy: Proxy) -> None:
        """Play before another store, with a Ray of its own, since the shared one knows only the
        shared store."""
        self.store, self.proxy = store, proxy
        self._client = s3_client(store.endpoint_url, FULL.access_key, FULL.secret_key)
        self.put_rows(self.rows)
        self.own_ray()

    def move_to_folder(self, folder: Path) -> None:
        """Put the output into a local folder; the input stays in the bucket."""
        self.output = str(folder)
        self._folder = folder

    # --- what is in the bucket ------------------------------------------------------------------

    def put_rows(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Write the input, past the proxy."""
        self.rows = rows
        sink = io.BytesIO()
        pq.write_table(pa.Table.from_pylist([dict(row) for row in rows]), sink)
        key = f"{self.name}/input/prompts.parquet"
        self._client.put_object(Bucket=BUCKET, Key=key, Body=sink.getvalue())

    def takes_writes(self) -> bool:
        """Whether the store, past the proxy, has room for an object."""
        try:
            self._client.put_object(Bucket=BUCKET, Key=f"{self.name}/room", Body=bytes(1000))
        except ClientError:
            return False
        return True

    def bucket(self) -> Bucket:
        """The output, past the proxy."""
        if self._folder is not None:
            return FolderBucket(self._folder)
        return S3Bucket(self._client, BUCKET, f"{self.name}/out")

    # --- what the network does ------------------------------------------------------------------

    def rule(
        self,
        action: Action,
        method: str,
        key: str,
        *,
        body: str = "",
        times: int | None = None,
        share: float = 1.0,
    ) -> Rule:
        """From now on, do this to such requests of this scene; ``key`` is a regular expression,
        begun at ``input/`` or ``out/``."""
        match = Match(method=method, key=f"^{re.escape(self.name)}/{key}", body=body)
        return self.proxy.rules.add(Rule(match=match, action=action, times=times, share=share))

    def hold(self, method: str, key: str, *, body: str = "", times: int | None = 1) -> Hold:
        """Stop the next such request, or so many, at a barrier."""
        barrier = Hold()
        self.rule(barrier, method, key, body=body, times=times)
        return barrier

    def hold_stage(self, stage: str) -> Hold:
        """Stop the next process that says that it comes to this stage."""
        barrier = Hold()
        match = Match(method="GET", key=f"^{STAGE}{stage}")
        self.proxy.rules.add(Rule(match=match, action=barrier, times=1))
        return barrier

    def await_landed(self, method: str, key: str, count: int = 1) -> None:
        """Wait until so many such requests did what they asked."""
        wanted = re.compile(f"^{re.escape(self.name)}/{key}")

        def fits(seen: Seen) -> bool:
            return seen.method == method and seen.landed and wanted.search(seen.key) is not None

        self.proxy.traffic.await_count(fits, count, f"{method} {key}", WAIT_S)

    def await_status(self, method: str, status: int, count: int = 1, key: str = "out/") -> None:
        """Wait until so many such requests were answered with this status."""
        wanted = re.compile(f"^{re.escape(self.name)}/{key}")

        def fits(seen: Seen) -> bool:
            same = (seen.method, seen.status) == (method, status)
            return same and wanted.search(seen.key) is not None

        self.proxy.traffic.await_count(fits, count, f"{method} {key}: {status}", WAIT_S)

    def await_unanswered(self, count: int) -> None:
        """Wait until so many requests found no store behind the proxy."""

        def fits(seen: Seen) -> bool:
            return seen.key.startswith(f"{self.name}/") and not seen.action and seen.status is None

        self.proxy.traffic.await_count(fits, count, "a request without an answer", WAIT_S)

    def traffic(self) -> list[Seen]:
        """What went through the proxy for this scene."""
        return self.proxy.traffic.below(f"{self.name}/")

    # --- who is at work -------------------------------------------------------------------------

    def command(self, *arguments: str) -> Driver:
        """Start ``imagemill`` with these arguments."""
        log = self.folder / f"{len(self._drivers):02d}-{arguments[0]}.log"
        driver = Driver(
            arguments, environment={**os.environ, **environment(self.store, self.proxy)}, log=log
        )
        self._drivers.append(driver)
        return driver

    def run(self, *more: str) -> Driver:
        """Start the job; later settings win."""
        return self.command(
            "run",
            f"input.path=s3://{BUCKET}/{self.name}/input/prompts.parquet",
            f"output.path={self.output}",
            f"cluster.address={self.address}",
            *self.settings,
            *more,
        )

    def resume(self, *more: str) -> Driver:
        """Go on with the job."""
        return self.command("resume", self.output, f"cluster.address={self.address}", *more)

    def cost(self) -> dict[str, Any]:
        """What ``imagemill cost`` tells of the job, through the proxy like any user."""
        answer = self.folder / "cost.json"
        asked = self.command("cost", self.output, "--format", "json", "--out", str(answer))
        assert asked.wait() == 0, asked.output[-3000:]
        told: dict[str, Any] = json.loads(answer.read_text())
        return told

    def own_ray(self) -> None:
        """From now on, each driver starts a Ray of its own."""
        self.address = "local"

    def ends(self, driver: Driver, *expected: int) -> None:
        """Wait for a driver's end and note it; its status must be one of the expected.

        Raises:
            AssertionError: it ended otherwise; the message holds what it said.
        """
        self.status = driver.wait()
        self.story.append(f"{driver.arguments[0]} {self.status}")
        assert self.status in expected, f"ended with {self.status}:\n{driver.output[-3000:]}"

    def killed(self, what: str) -> None:
        """Note that somebody was killed, after whom nothing goes on by itself."""
        self.status = None
        self.story.append(f"{what} killed")

    def bring_to_end(self, *more: str) -> None:
        """Resume as often as a patient user would, until the job is done."""
        self.proxy.rules.clear()
        for _ in range(3):
            if self.status in (0, 1):
                break
            self.ends(self.resume(*more), 0, 1, 3)
        assert self.status == self.wanted_status, self.story

    def more_rows(self, count: int) -> list[dict[str, Any]]:
        """The rows of the scene, continued."""
        return make_rows(count, self.stage.seed)

    def cure_rows(self) -> None:
        """From now on, rows that did harm do none."""
        match = Match(method="GET", key=f"^{STAGE}harm")
        self.proxy.rules.add(Rule(match=match, action=Answer(status=410, code="Cured")))

    def await_process(self, find: Callable[[], list[psutil.Process]]) -> None:
        """Wait until there is such a process."""
        wait_until(lambda: bool(find()), "a process that was expected", WAIT_S)

    def await_gone(self, processes: Sequence[psutil.Process]) -> None:
        """Wait until these processes have ended."""
        _, alive = psutil.wait_procs(list(processes), timeout=WAIT_S)
        assert not alive, f"these did not leave: {alive}"

    def client_of(self, asked: Asked) -> psutil.Process:
        """The process that sent a request which is being held."""
        for found in psutil.net_connections("tcp4"):
            if found.laddr == asked.client and found.pid:
                return psutil.Process(found.pid)
        raise AssertionError(f"nobody holds the connection {asked.client}")

    def kill_client(self, asked: Asked) -> None:
        """``kill -9`` of the process that sent a request; returns when it is gone."""
        process = self.client_of(asked)
        process.kill()
        psutil.wait_procs([process], timeout=WAIT_S)
