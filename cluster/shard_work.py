"""What a worker knows of one leased shard: which rows are pending, finished or rejected.

A row is done as a whole: with all of its images, or quarantined. Pure bookkeeping; the worker holds
a lock around it, and the commit writer takes finished rows out of it.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from cluster.records import Shard
from conf.errors import RowRejected
from operators.request import Request


@dataclass(frozen=True, slots=True, kw_only=True)
class FinishedImage:
    """An encoded image. ``data`` is None when it is an object of its own already, under ``key``."""

    request: Request
    name: str
    key: str
    data: bytes | None
    bytes: int
    sha256: str
    device_ns: int
    truncated_tokens: int
    started_at_ns: int
    finished_at_ns: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RejectedRow:
    """A row that will not become images, and why. ``label`` is the user's id."""

    offset: int
    label: str | None
    stage: str
    reason: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Finished and rejected rows to be committed together; ``images`` in row and image order."""

    rows: tuple[int, ...]
    images: tuple[FinishedImage, ...]
    rejected: tuple[RejectedRow, ...]


@dataclass(slots=True)
class _Row:
    expected: int
    images: list[FinishedImage] = field(default_factory=list)


class ShardWork:
    """Invariant: each pending offset is in exactly one of: open rows, finished rows, rejected rows,
    or handed out in a ``Batch``; ``finished`` is true once none is left outside the last."""

    def __init__(self, shard: Shard, *, pending: set[int]) -> None:
        self.shard = shard
        self._unread = set(pending)
        self._open: dict[int, _Row] = {}
        self._finished: dict[int, _Row] = {}
        self._rejected: list[RejectedRow] = []
        self._ready_images = 0

    def offset_of(self, row_id: int) -> int:
        """The row's place inside the shard."""
        return row_id - self.shard.first_row_id

    def expect(self, offset: int, images: int) -> None:
        """A row was read and will become so many images."""
        self._unread.discard(offset)
        self._open[offset] = _Row(expected=images)

    def wants(self, request: Request) -> bool:
        """Whether the request's row is still open (not rejected through another of its images)."""
        return self.offset_of(request.row_id) in self._open

    def reject(self, offset: int, label: str | None, error: RowRejected) -> None:
        """The row is quarantined; images of it that are finished already are dropped."""
        if offset not in self._unread and offset not in self._open:
            return
        self._unread.discard(offset)
        self._open.pop(offset, None)
        self._rejected.append(
            RejectedRow(
                offset=offset,
                label=label,
                stage=error.stage,
                reason=error.reason,
                message=error.message,
            )
        )

    def finish(self, image: FinishedImage) -> None:
        """One image of an open row is encoded; the row is finished with its last one."""
        offset = self.offset_of(image.request.row_id)
        row = self._open.get(offset)
        if row is None:
            return
        row.images.append(image)
        if len(row.images) == row.expected:
            self._finished[offset] = self._open.pop(offset)
            self._ready_images += row.expected

    def unfinished(self) -> list[int]:
        """Offsets that are neither finished nor rejected."""
        return sorted(self._unread | set(self._open))

    @property
    def ready_images(self) -> int:
        """Images of finished rows that no batch has taken yet."""
        return self._ready_images

    @property
    def anything_ready(self) -> bool:
        """Whether a batch would hold anything."""
        return bool(self._finished or self._rejected)

    @property
    def all_done(self) -> bool:
        """Whether no row is left to be worked on."""
        return not self._unread and not self._open

    def take(self) -> Batch:
        """All finished and rejected rows; they are the caller's now."""
        rows = sorted(self._finished)
        images = [
            image
            for offset in rows
            for image in sorted(self._finished[offset].images, key=lambda i: i.request.image_index)
        ]
        batch = Batch(
            rows=tuple(rows),
            images=tuple(images),
            rejected=tuple(sorted(self._rejected, key=lambda r: r.offset)),
        )
        self._finished, self._rejected, self._ready_images = {}, [], 0
        return batch
