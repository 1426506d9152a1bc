"""Amounts of money as they are read: decimal numbers become integers of 1e-9 currency units. Pure.

Ledgers keep such integers in 64 bits, which end at about 9.2 billion units. What is read is bounded
so that neither a price nor what it is multiplied with comes near that end by a slip.
"""

from __future__ import annotations

from decimal import Decimal, InvalidOperation
from typing import Any

from conf.errors import ConfigError

NANO = 1_000_000_000
MOST_PRICE = 10_000_000
"""Of an hour, or of any other unit. A worker at this price may live 38 days before what it cost
does not fit 64 bits; a machine of eight large GPUs costs about a fifth of it in small
currencies.
"""
MOST_BUDGET = 9_000_000_000
"""No ledger can come to more."""


def nano(value: Any, where: str, most: int = MOST_PRICE) -> int:
    """An amount as 1e-9 currency units; ``where`` names it in errors.

    Raises:
        ConfigError: it is not a number from 0 to ``most``, or finer than 1e-9.
    """
    how = "with at most 9 digits after the point"
    found = decimal(value, where, most, how) * NANO
    if found != found.to_integral_value():
        raise _wrong(value, where, how)
    return int(found)


def decimal(value: Any, where: str, most: int, how: str = "") -> Decimal:
    """A number from 0 to ``most``; ``how`` says in errors what else is expected of it.

    Raises:
        ConfigError: it is none.
    """
    try:
        found = Decimal(str(value))
    except InvalidOperation:
        found = Decimal(-1)
    if not found.is_finite() or found < 0:
        raise _wrong(value, where, how)
    if found > most:
        raise ConfigError(
            f"{where} is '{value}'; expected at most {most:,}: amounts are kept as integers of "
            "1e-9 in 64 bits, and sums of more would not fit; correct it, or use a currency of "
            "larger units"
        )
    return found


def _wrong(value: Any, where: str, how: str) -> ConfigError:
    return ConfigError(f"{where} is '{value}'; expected a decimal number >= 0 {how}".rstrip())
