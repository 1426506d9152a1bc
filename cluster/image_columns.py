"""The columns that say what an image cost with its share of what no image has.

They are known once a run has ended, so that no commit's metadata has them: they are in
``costs/`` of every output, and in the list of images of one whose format is ``files``.
"""

from __future__ import annotations

import pyarrow as pa

from cluster.tables import MONEY

SHARED = ("wasted", "overhead", "idle", "requests", "egress", "storage")
"""The kinds of ledger lines that no image has."""
SHARES = pa.schema(
    [
        *(pa.field(f"cost_{kind}", MONEY) for kind in SHARED),
        ("cost_total", MONEY),
        ("energy_total_wh", pa.float64()),
        ("gco2e_total", pa.float64()),
    ]
)
"""``cost_KIND`` is the image's share of the lines of this kind, ``cost_total`` its direct cost with
all of them. Over all images each sums exactly to the ledger. Null is what is not known."""
IMAGE_COSTS = pa.schema(
    [
        ("image_id", pa.string()),
        ("row_id", pa.int64()),
        ("cost", MONEY),
        *SHARES,
        ("currency", pa.string()),
        ("gpu_seconds", pa.float64()),
        ("energy_wh", pa.float64()),
        ("gco2e", pa.float64()),
    ],
    metadata={b"imagemill_schema": b"1"},
)
"""The tables in ``costs/``: one row an image."""
