"""How fast this machine was: measured rates, so that a dry run can tell a time."""

from __future__ import annotations

from dataclasses import dataclass

from operators.remembered import RememberedNumbers
from operators.sampler_names import model_calls

_FILE = "rates"
_EARLIER = "earlier_rates"
_KEPT = 8
"""Earlier runs of which the rate is kept, to tell how they differ."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RateKey:
    """What a rate was measured with. ``device`` is a GPU's name, or ``cpu-<cores>``."""

    engine: str
    model: str
    revision: str
    device: str
    max_batch: int

    def parts(self) -> tuple[object, ...]:
        """The key in the file."""
        return (self.engine, self.model, self.revision, self.device, self.max_batch)


def weighted_steps(*, sampler: str, steps: int, passes: int) -> int:
    """Rows that one image puts into the denoiser: its calls, doubled by a guidance pass."""
    return model_calls(sampler, steps) * passes


def remember(key: RateKey, *, pixel_steps: float, seconds: float) -> None:
    """Keep the rate of one worker: ``pixel_steps`` (pixels x weighted steps) in ``seconds``."""
    if pixel_steps <= 0 or seconds <= 0:
        return
    RememberedNumbers(_FILE).keep(pixel_steps / seconds, *key.parts())
    earlier = RememberedNumbers(_EARLIER)
    count = int(earlier.get(*key.parts(), "runs") or 0)
    earlier.keep(pixel_steps / seconds, *key.parts(), count % _KEPT)
    earlier.keep(count + 1, *key.parts(), "runs")


def earlier_rates(key: RateKey) -> list[float]:
    """Pixel-steps a second of the last eight runs, in no order."""
    numbers = RememberedNumbers(_EARLIER)
    found = [numbers.get(*key.parts(), place) for place in range(_KEPT)]
    return [rate for rate in found if rate is not None]


def estimate(key: RateKey, pixel_steps: float, *, workers: int = 1) -> float | None:
    """Seconds that ``workers`` like the measured one need; None where nothing was measured."""
    rate = RememberedNumbers(_FILE).get(*key.parts())
    return None if rate is None else pixel_steps / (rate * workers)
