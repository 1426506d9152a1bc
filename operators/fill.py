"""How full the batches were, and why slots stayed empty."""

from __future__ import annotations

from operators.batcher import TickPlan


class FillCount:
    """Running totals over ticks; fill = ``occupied`` / ``offered`` slots.

    Of the empty slots, ``other_shapes`` stayed so because all that waited had another shape,
    ``starved`` because the next rows had not arrived yet; for the rest no row was left.
    """

    def __init__(self) -> None:
        self.ticks = 0
        self.occupied = 0
        self.offered = 0
        self.other_shapes = 0
        self.starved = 0

    def count(self, plan: TickPlan, *, rows: int, more_to_come: bool) -> None:
        """A tick of ``rows`` rows ran; ``more_to_come``: others may be admitted later."""
        self.ticks += 1
        self.occupied += rows
        self.offered += plan.slots
        if plan.others:
            self.other_shapes += plan.slots - rows
        elif more_to_come:
            self.starved += plan.slots - rows
