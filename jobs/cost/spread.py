"""Spreading what no image has (waste, loading, waiting, storage) over groups of images. Pure.

A model's images have cost more than their own device time: the workers also waited and loaded for
them. Shares go by device time, within an output and within whatever else is asked that such lines
know themselves (a day, a node), by cumulated rounding, so that the groups still sum exactly.
"""

from __future__ import annotations

from collections.abc import Sequence

from conf.errors import ConfigError
from jobs.cost.dimensions import TAG, Dimension, quoted

OTHERS = ("wasted", "overhead", "idle", "storage", "requests", "egress")
_OF_IMAGES = ("model", "sampler", "steps", "size")


def refuse_kind(by: Sequence[Dimension]) -> None:
    """Check that there is something to spread over.

    Raises:
        ConfigError: the kinds are asked for and to be hidden in each other at once.
    """
    if any(one.name == "kind" for one in by):
        raise ConfigError(
            "--spread charges idle, wasted and other time to images, so --by kind has nothing to "
            "show beside it; leave one of them out"
        )


def spread(by: Sequence[Dimension]) -> str:
    """The table ``summed`` as ``shared``, with its columns.

    Where a line of the others has no price, or no image was made, nothing is spread: the others
    stand in rows of their own, as without it.
    """
    names = [quoted(one.name) for one in by]
    apart = [
        name
        for name, one in zip(names, by, strict=True)
        if one.name not in _OF_IMAGES and not one.name.startswith(TAG)
    ]
    among = f"PARTITION BY {', '.join([*apart, 'currency', 'source'])}"
    upto = f"({among} ORDER BY {', '.join([*names, 'of_image'])} ROWS UNBOUNDED PRECEDING)"
    sums = (*OTHERS, "others_ns")
    pools = [f"coalesce(sum({name}) OVER ({among}), 0) AS {name}_pool" for name in sums]
    cut = {
        name: f"CASE WHEN cut THEN {name}_pool * upto // weight - "
        f"{name}_pool * (upto - used_ns) // weight ELSE {name} END"
        for name in sums
    }
    parts = [f"{cut[name]} AS {name}" for name in sums]
    total = " + ".join(f"coalesce({name}, 0)" for name in ("used", *OTHERS))
    keys = ", ".join([*names, "of_image", "currency", "source"])
    return f"""
        CREATE TEMP TABLE shared AS
        WITH weighed AS (
            SELECT *, {", ".join(pools)},
                sum(used_ns) OVER ({among}) AS weight,
                sum(used_ns) OVER {upto} AS upto,
                sum(unpriced_others) OVER ({among}) = 0 AND sum(used_ns) OVER ({among}) > 0 AS cut
            FROM summed
        ), parts AS (
            SELECT {keys}, cut, used, used_ns, images, lines, unpriced_lines, unpriced_gpu_ns,
                cost AS own_cost, {", ".join(parts)}
            FROM weighed WHERE images > 0 OR NOT cut
        )
        SELECT *, CASE WHEN cut THEN {total} ELSE own_cost END AS cost,
            used_ns + others_ns AS gpu_ns
        FROM parts"""
