"""The names of the metadata columns, and how an input column that shares one is carried beside it.

Pure. The metadata table has one row an image; every input column without a meaning of its own
travels along, and none may hide a column that ImageMill writes.
"""

from __future__ import annotations

from collections.abc import Iterable

from cluster.image_columns import SHARES
from cluster.tables import METADATA

METADATA_COLUMNS = tuple(METADATA.names)
"""What ImageMill writes about each image, in this order."""

RESERVED = (*METADATA_COLUMNS, *SHARES.names, "image")
"""Names that no input column is carried under; output.format=parquet adds ``image``, and the list
of images the shares."""

_PREFIX = "input_"


def carried_names(names: Iterable[str]) -> dict[str, str]:
    """Input column -> the name it is carried under; ``input_<name>`` where that is taken."""
    sources = list(names)
    taken = {*RESERVED, *sources}
    carried: dict[str, str] = {}
    for source in sources:
        name = source
        if source in RESERVED:
            name = _PREFIX + source
            while name in taken:
                name = _PREFIX + name
            taken.add(name)
        carried[source] = name
    return carried
