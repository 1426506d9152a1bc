"""Writes of which the reply was lost, refused or never came: what the store then says of them."""

from __future__ import annotations

import errno
import os
import secrets
import time
from typing import Any

import pytest

from cluster.plain_objects import PlainObjects
from cluster.store import Store
from cluster.store_access import Access
from conf.errors import CommitConflict, CommitUnknown, StoreFull, StoreUnavailable


class Network:
    """The objects of a store behind a network that fails as ``fail`` says, ``times`` times; a write
    lands all the same where it ``lands``."""

    replies_get_lost = True

    def __init__(self, objects: PlainObjects) -> None:
        self._objects = objects
        self.fail = errno.ETIMEDOUT
        self.times = 10**9
        self.lands = False
        self.readable = True
        self.tries = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._objects, name)

    def create(self, path: str, data: bytes) -> None:
        self.tries += 1
        if self.tries > self.times:
            self._objects.create(path, data)
            return
        if self.lands:
            self._objects.create(path, data)
        raise OSError(self.fail, os.strerror(self.fail))

    def read(self, path: str) -> bytes | None:
        if not self.readable:
            raise OSError(errno.ETIMEDOUT, "no answer")
        return self._objects.read(path)


def failing(patience_s: float = 0) -> tuple[Store, Network]:
    store = Store(f"memory://failing-{secrets.token_hex(4)}", Access(patience_s=patience_s))
    assert isinstance(store._objects, PlainObjects)
    network = Network(store._objects)
    store._objects = network  # type: ignore[assignment]
    return store, network


def test_a_write_that_landed_and_lost_its_reply_succeeds() -> None:
    store, network = failing()
    network.lands = True
    store.put_if_absent("key", b"one")
    assert store.get("key") == b"one"


def test_a_write_that_was_not_seen_to_land_is_store_unavailable() -> None:
    store, _ = failing()
    with pytest.raises(StoreUnavailable, match=r"^cannot write .*key: Connection timed out$"):
        store.put_if_absent("key", b"one")
    assert store.get("key") is None


def test_a_write_that_nobody_can_tell_about_is_commit_unknown() -> None:
    store, network = failing()
    network.lands, network.readable = True, False
    with pytest.raises(CommitUnknown, match="key: the write may have landed"):
        store.put_if_absent("key", b"one")


def test_a_refused_write_whose_holder_cannot_be_read_is_commit_unknown() -> None:
    store, network = failing()
    network.fail, network.readable = errno.EEXIST, False
    with pytest.raises(CommitUnknown, match="key: the write may have landed"):
        store.put_if_absent("key", b"one")


def test_a_lost_reply_to_a_write_that_another_one_beat_is_a_conflict() -> None:
    store, _ = failing()
    store.put("key", b"two")
    with pytest.raises(CommitConflict, match="key exists with other content"):
        store.put_if_absent("key", b"one")


def test_a_write_is_tried_again_until_the_store_answers() -> None:
    store, network = failing(patience_s=60)
    network.times = 3
    store.put_if_absent("key", b"one")
    assert network.tries == 4
    assert store.get("key") == b"one"


def test_tries_that_were_made_again_are_counted_and_the_time_of_the_write_holds_them_all() -> None:
    store, network = failing(patience_s=60)
    network.times = 2
    took: list[float] = []
    store.traffic.put_took = took.append
    began_s = time.monotonic()
    store.put_if_absent("key", b"one")
    assert store.traffic.retries == 2
    (took_s,) = took
    assert 0 < took_s <= time.monotonic() - began_s
    store.put_if_absent("other", b"two")
    assert store.traffic.retries == 2
    assert len(took) == 2


def test_a_store_that_is_silent_for_longer_than_the_patience_is_unavailable() -> None:
    store, network = failing(patience_s=0.2)
    with pytest.raises(StoreUnavailable):
        store.put_if_absent("key", b"one")
    assert network.tries > 1


def test_a_remote_store_that_is_full_is_store_full_at_once() -> None:
    store, network = failing(patience_s=60)
    network.fail = errno.EDQUOT
    with pytest.raises(StoreFull, match=r"^cannot write .*key: Disk quota exceeded"):
        store.put_if_absent("key", b"one")
    assert network.tries == 1


def test_a_read_that_gets_no_answer_is_store_unavailable() -> None:
    store, network = failing()
    network.readable = False
    with pytest.raises(StoreUnavailable, match=r"^cannot read .*key: no answer$"):
        store.get("key")
