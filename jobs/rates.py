"""How fast this machine was: measured rates, so that a dry run can tell a time."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from operators.cache_files import cache_folder, read_cached, write_cached
from operators.remembered import RememberedNumbers
from operators.sampler_names import model_calls

_FILE = "rates"
_RUNS = "runs.json"
_RUNS_SCHEMA = 1
_KEPT = 8
"""Earlier runs of a host of which the rate is kept, to tell how they differ."""
_KEPT_ELSEWHERE = 24
"""The same of all other hosts that share the user's cache."""
_MOST_KEYS = 1000


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


@dataclass(frozen=True, slots=True, kw_only=True)
class EarlierRun:
    """A run that was measured: ``rate`` in pixel-steps a second, when and on which host."""

    rate: float
    at: datetime
    host: str


def weighted_steps(*, sampler: str, steps: int, passes: int) -> int:
    """Rows that one image puts into the denoiser: its calls, doubled by a guidance pass."""
    return model_calls(sampler, steps) * passes


def this_host() -> str:
    """The name of the machine that asks."""
    return platform.node()


def remember(
    key: RateKey, *, pixel_steps: float, seconds: float, at: datetime | None = None, host: str = ""
) -> None:
    """Keep the rate of one worker: ``pixel_steps`` (pixels x weighted steps) in ``seconds``,
    measured now and here unless told otherwise."""
    if pixel_steps <= 0 or seconds <= 0:
        return
    RememberedNumbers(_FILE).keep(pixel_steps / seconds, *key.parts())
    run = EarlierRun(
        rate=pixel_steps / seconds, at=at or datetime.now(UTC), host=host or this_host()
    )
    runs = _load()
    before = runs.pop(_text(key), [])
    own = [one for one in before if one.host == run.host][1 - _KEPT :]
    others = [one for one in before if one.host != run.host][-_KEPT_ELSEWHERE:]
    runs[_text(key)] = [*others, *own, run]
    for oldest in list(runs)[:-_MOST_KEYS]:
        del runs[oldest]
    plain = {text: [_plain(one) for one in found] for text, found in runs.items()}
    write_cached(cache_folder() / _RUNS, {"schema": _RUNS_SCHEMA, "runs": plain})


def earlier_runs(key: RateKey) -> list[EarlierRun]:
    """The last runs on this host, eight at most, the newest first; where there is none, those on
    other hosts with such a device that share this user's cache."""
    found = sorted(_load().get(_text(key), []), key=lambda run: run.at, reverse=True)
    here = [run for run in found if run.host == this_host()]
    return (here or found)[:_KEPT]


def measured_rate(key: RateKey) -> float | None:
    """Pixel-steps a second of one worker; None where nothing was measured."""
    return RememberedNumbers(_FILE).get(*key.parts())


def measured_devices(like: RateKey) -> list[str]:
    """The devices on which anything was measured that is like the key in all else, as they were
    given behind the key's own ``device``."""
    parts = [[str(part) for part in key] for key in map(json.loads, _load())]
    wanted = [str(part) for part in like.parts()]
    return [
        device.removeprefix(like.device)
        for *what, device, batch in parts
        if [*what, batch] == [*wanted[:-2], wanted[-1]] and device.startswith(like.device)
    ]


def estimate(key: RateKey, pixel_steps: float, *, workers: int = 1) -> float | None:
    """Seconds that ``workers`` like the measured one need; None where nothing was measured."""
    rate = measured_rate(key)
    return None if rate is None else pixel_steps / (rate * workers)


def _load() -> dict[str, list[EarlierRun]]:
    return read_cached(cache_folder() / _RUNS, _RUNS_SCHEMA, _parsed) or {}


def _parsed(plain: Mapping[str, Any]) -> dict[str, list[EarlierRun]]:
    return {str(text): [_run(one) for one in found] for text, found in plain["runs"].items()}


def _run(plain: Mapping[str, Any]) -> EarlierRun:
    rate, at = float(plain["rate"]), datetime.fromisoformat(plain["at"])
    if not 0 < rate < float("inf") or at.tzinfo is None:
        raise ValueError(f"found {plain}; expected a rate above 0 and a time with its zone")
    return EarlierRun(rate=rate, at=at, host=str(plain["host"]))


def _plain(run: EarlierRun) -> dict[str, object]:
    return {"rate": run.rate, "at": run.at.isoformat(), "host": run.host}


def _text(key: RateKey) -> str:
    return json.dumps([str(part) for part in key.parts()])
