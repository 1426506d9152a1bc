"""How fast this machine was: measured rates, so that a dry run can tell a time."""

from __future__ import annotations

from dataclasses import dataclass

from operators.remembered import RememberedNumbers
from operators.sampler_names import model_calls

_FILE = "rates"


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
    if pixel_steps > 0 and seconds > 0:
        RememberedNumbers(_FILE).keep(pixel_steps / seconds, *key.parts())


def estimate(key: RateKey, pixel_steps: float, *, workers: int = 1) -> float | None:
    """Seconds that ``workers`` like the measured one need; None where nothing was measured."""
    rate = RememberedNumbers(_FILE).get(*key.parts())
    return None if rate is None else pixel_steps / (rate * workers)
