"""How tests reach stores, and what lies in them."""

from collections.abc import Iterator

from cluster.store import Entry, Store
from cluster.store_access import Access

ONCE = Access(patience_s=0)
"""One try and no more: what fails shows at once."""


def walk(store: Store, prefix: str) -> Iterator[Entry]:
    """All objects below ``prefix``, a folder at a time."""
    yield from store.listing(prefix)
    for name in store.folders(prefix):
        yield from walk(store, f"{prefix.rstrip('/')}/{name}/".lstrip("/"))
