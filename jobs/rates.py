"""How fast this machine was: a small file of measured rates, so that a dry run can tell a time.

A convenience for one user on one machine (``~/.cache/imagemill/rates.json``, ``XDG_CACHE_HOME`` is
respected); nothing depends on it, so a file that cannot be read or written only costs the estimate.
"""

from __future__ import annotations

import json
import logging
import math
import os
import secrets
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from operators.cache_folder import cache_folder
from operators.sampler_names import SPECS

log = logging.getLogger(__name__)

_SCHEMA = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class RateKey:
    """What a rate was measured with. ``device`` is a GPU's name, or ``cpu-<cores>``."""

    engine: str
    model: str
    revision: str
    device: str
    max_batch: int

    def text(self) -> str:
        """The key in the file."""
        parts = (self.engine, self.model, self.revision, self.device, str(self.max_batch))
        return json.dumps(parts, ensure_ascii=False)


def weighted_steps(*, sampler: str, steps: int, guidance_scale: float) -> int:
    """Rows that one image puts into the denoiser: its calls, doubled by guidance."""
    return SPECS[sampler].model_calls(steps) * (2 if guidance_scale > 1 else 1)


def rates_path() -> Path:
    """Where the rates are kept."""
    return cache_folder() / "rates.json"


def remember(key: RateKey, *, pixel_steps: float, seconds: float) -> None:
    """Keep the rate of one worker: ``pixel_steps`` (pixels x weighted steps) in ``seconds``."""
    if pixel_steps <= 0 or seconds <= 0:
        return
    path = rates_path()
    rates = _load(path)
    rates[key.text()] = pixel_steps / seconds
    text = json.dumps({"schema": _SCHEMA, "pixel_steps_per_second": rates}, indent=1)
    temporary = path.with_name(f".{path.name}-{secrets.token_hex(6)}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(text + "\n", encoding="utf-8")
        os.replace(temporary, path)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink()
        log.warning(
            "cannot keep the measured rate in %s: %s", path, error, extra={"event": "rates_unkept"}
        )


def estimate(key: RateKey, pixel_steps: float, *, workers: int = 1) -> float | None:
    """Seconds that ``workers`` like the measured one need; None where nothing was measured."""
    rate = _load(rates_path()).get(key.text())
    return None if rate is None else pixel_steps / (rate * workers)


def _load(path: Path) -> dict[str, float]:
    try:
        plain = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(plain, dict) or plain.get("schema") != _SCHEMA:
            raise ValueError(f"expected schema {_SCHEMA}")
        rates = plain["pixel_steps_per_second"]
        return {str(key): _rate(value) for key, value in rates.items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        log.warning("ignored the rates in %s: %s", path, error, extra={"event": "rates_ignored"})
        return {}


def _rate(value: Any) -> float:
    rate = float(value)
    if not math.isfinite(rate) or rate <= 0:
        raise ValueError(f"a rate is {value!r}; expected more than 0")
    return rate
