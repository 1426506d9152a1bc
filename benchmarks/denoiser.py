"""ImageMill's engine against the bare denoiser, in turns within one process.

Both are counted in rows of forward passes a second: an image with guidance has two in every step.
"""

from __future__ import annotations

from benchmarks.resident import Resident
from benchmarks.results import Share
from benchmarks.workloads import rows_of

BATCHES = (4, 8, 16, 32)
DRAW = 1_000
"""The first of the draws that only this part makes."""


def measure(resident: Resident, precision: str, turn: int, rows: int) -> Share:
    """The bare denoiser at several batch sizes, and the engine on ``rows`` images."""
    bare = {str(batch): resident.bare(batch) for batch in BATCHES}
    uniform = resident.loop(rows_of("uniform", rows, DRAW + turn))
    mixed = resident.loop(rows_of("one_shape", rows, DRAW + turn))
    return Share(
        precision=precision,
        turn=turn,
        bare_per_second=bare,
        uniform_per_second=uniform.rows / uniform.seconds,
        one_shape_per_second=mixed.rows / mixed.seconds,
        uniform_denoiser_share=uniform.denoiser_s / uniform.seconds,
        one_shape_denoiser_share=mixed.denoiser_s / mixed.seconds,
        fill=mixed.fill,
    )
