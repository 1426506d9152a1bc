"""Where each object of an output lives. Pure: numbers in, keys out.

Everything that an attempt writes carries its shard and epoch, so a fenced attempt can never write
over a committed object, and ``gc`` can tell from the key alone whether an object may still be
wanted.
"""

from __future__ import annotations

import re

JOB = "job.json"
PLAN_SHARDS = "plan/shards.parquet"
PLAN_INPUTS = "plan/inputs.parquet"
PLAN_STAGED = "plan/staged"
MANIFEST = "manifest.json"
QUOTE = "quote.json"
"""What was quoted for the job before it began."""
WORKER_LEDGER = "ledger/workers.parquet"
"""The lines of the workers' lifetimes: derived from their stamps, rebuilt at will."""
IMAGE_COSTS = "costs/"
"""Folder of what each image cost with its shares: derived, rebuilt at will."""
LEASES = "leases/"
GROUP_SHARDS = 1000
"""Shards whose opening and commit records share a folder of the first level."""
CHECKPOINTS = "checkpoints/"
WORKERS = "workers/"
"""Folder of the workers' newest stamps."""
REPORT = "report.html"
CONTACT_SHEET = "contact_sheet.png"
README = "README.md"
ATTEMPT_PREFIXES = ("images/", "shards/", "data/", "metadata/", "quarantine/", "ledger/")
"""What attempts write before their commit; only these are ever removed."""

_ATTEMPT = re.compile(r"^(?:images|shards|data|metadata|quarantine|ledger)/(\d+)-(\d+)[-/]")
_SHARD = re.compile(r"^(\d+)-")


def shard_name(shard_id: int) -> str:
    """The shard in keys."""
    return f"{shard_id:08d}"


def group_of(shard_id: int) -> int:
    """The group of the shard; records lie in a folder a group, so that no folder grows large."""
    return shard_id // GROUP_SHARDS


def group_name(group: int) -> str:
    """The group in keys: the first digits of its shards' names."""
    return f"{group:05d}"


def openings(shard_id: int) -> str:
    """Folder of a shard's opening records."""
    return f"{LEASES}{group_name(group_of(shard_id))}/{shard_name(shard_id)}/"


def opening(shard_id: int, epoch: int) -> str:
    """Key of an opening record."""
    return f"{openings(shard_id)}{epoch:06d}.json"


def commits(shard_id: int) -> str:
    """Folder of a shard's commit records."""
    return f"commits/{group_name(group_of(shard_id))}/{shard_name(shard_id)}/"


def commit(shard_id: int, epoch: int, seq: int) -> str:
    """Key of a commit record."""
    return f"{commits(shard_id)}{epoch:06d}-{seq:06d}.json"


def epoch_of(key: str) -> int:
    """The epoch in the name of an opening or commit record."""
    return int(key.rsplit("/", 1)[-1].split(".", maxsplit=1)[0].split("-", maxsplit=1)[0])


def attempt_object(folder: str, shard_id: int, epoch: int, seq: int, extension: str) -> str:
    """Key of an object that holds what one commit names: Parquet or tar."""
    return f"{folder}/{shard_name(shard_id)}-{epoch:06d}-{seq:06d}.{extension}"


def image(shard_id: int, epoch: int, name: str, extension: str) -> str:
    """Key of one image object."""
    return f"images/{shard_name(shard_id)}-{epoch:06d}/{name}.{extension}"


def attempt_of(key: str) -> tuple[int, int] | None:
    """(shard, epoch) that wrote the object, or None when the key is not an attempt's."""
    found = _ATTEMPT.match(key)
    return (int(found[1]), int(found[2])) if found else None


def shard_in(name: str) -> int | None:
    """The shard that the name of an attempt's object or image folder begins with, if any."""
    found = _SHARD.match(name)
    return int(found[1]) if found else None


def stamp(worker: str) -> str:
    """Key of a worker's newest stamp; only the worker itself replaces it."""
    return f"{WORKERS}{worker}.json"


def run(number: int) -> str:
    """Key of a run record."""
    return f"runs/{number:06d}.json"


def prices(digest: str) -> str:
    """Key of a price book that a run was priced by."""
    return f"prices/{digest}.json"


def run_end(number: int) -> str:
    """Key of the record that run ``number`` ended."""
    return f"ends/{number:06d}.json"


def driver(number: int) -> str:
    """Key of the sign of life of run ``number``'s driver; only that driver replaces it."""
    return f"drivers/{number:06d}.json"


def cancel(number: int) -> str:
    """Key whose existence asks run ``number`` to stop."""
    return f"cancels/{number:06d}.json"


def retry(generation: int) -> str:
    """Key of a retry record."""
    return f"retries/{generation:06d}.json"


def checkpoint(number: int) -> str:
    """Key of a checkpoint."""
    return f"{CHECKPOINTS}{number:06d}.parquet"


def image_costs(part: int) -> str:
    """Key of a table of what images cost with their shares."""
    return f"{IMAGE_COSTS}{part:06d}.parquet"


def manifest(generation: int) -> str:
    """Key whose put-if-absent write finishes a generation of the job."""
    return f"manifests/{generation:06d}.json"


_UNSAFE = re.compile(r"[^A-Za-z0-9_-]+")


def safe_label(label: str | None) -> str:
    """A user's label as it may stand in an object name: no dots, slashes, spaces; may be empty."""
    return _UNSAFE.sub("_", label or "").strip("_")[:60]
