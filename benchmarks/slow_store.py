"""A real store that is far away: every put takes some time longer."""

from __future__ import annotations

import time

from cluster.store import Store


class SlowStore(Store):
    """Waits ``put_s`` in the thread that puts, as for a distant store's answer; then puts."""

    put_s = 0.2

    def put_if_absent(self, key: str, data: bytes) -> None:
        time.sleep(self.put_s)
        super().put_if_absent(key, data)

    def put(self, key: str, data: bytes) -> None:
        time.sleep(self.put_s)
        super().put(key, data)
