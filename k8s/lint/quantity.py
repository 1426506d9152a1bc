"""Kubernetes quantities, as ``250m`` or ``64Gi``, as numbers."""

from __future__ import annotations

import re
from fractions import Fraction

_FORM = re.compile(r"([+-]?[0-9.]+)(m|[kMGTPE]i?|Ki)?")
_SCALE: dict[str | None, Fraction] = {
    None: Fraction(1),
    "m": Fraction(1, 1000),
    **{unit: Fraction(1000**power) for power, unit in enumerate("kMGTPE", start=1)},
    **{f"{unit}i": Fraction(1024**power) for power, unit in enumerate("KMGTPE", start=1)},
}


def quantity(given: str | int | float) -> Fraction:
    """The number that a quantity means: cores, bytes or pieces.

    Raises:
        ValueError: it is none.
    """
    form = _FORM.fullmatch(str(given))
    if form is None:
        raise ValueError(f"{given!r} is no quantity; expected a form as 250m, 2 or 64Gi")
    return Fraction(form[1]) * _SCALE[form[2]]
