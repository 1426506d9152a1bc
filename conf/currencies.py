"""Codes of currencies: ISO 4217, those in circulation, without funds, metals and test codes."""

from __future__ import annotations

from typing import Any

from conf.errors import ConfigError

_CODES = """
    AED AFN ALL AMD AOA ARS AUD AWG AZN BAM BBD BDT BGN BHD BIF BMD BND BOB BRL BSD BTN BWP BYN BZD
    CAD CDF CHF CLP CNY COP CRC CUP CVE CZK DJF DKK DOP DZD EGP ERN ETB EUR FJD FKP GBP GEL GHS GIP
    GMD GNF GTQ GYD HKD HNL HTG HUF IDR ILS INR IQD IRR ISK JMD JOD JPY KES KGS KHR KMF KPW KRW KWD
    KYD KZT LAK LBP LKR LRD LSL LYD MAD MDL MGA MKD MMK MNT MOP MRU MUR MVR MWK MXN MYR MZN NAD NGN
    NIO NOK NPR NZD OMR PAB PEN PGK PHP PKR PLN PYG QAR RON RSD RUB RWF SAR SBD SCR SDG SEK SGD SHP
    SLE SOS SRD SSP STN SVC SYP SZL THB TJS TMT TND TOP TRY TTD TWD TZS UAH UGX USD UYU UZS VES VND
    VUV WST XAF XCD XCG XOF XPF YER ZAR ZMW ZWG
"""
CURRENCIES = frozenset(_CODES.split())


def check_currency(code: Any, where: str, more: str = "") -> None:
    """Refuse what is no code of a currency; ``where`` names it in errors, ``more`` ends them.

    Raises:
        ConfigError: it is none.
    """
    if isinstance(code, str) and code in CURRENCIES:
        return
    near = code.strip().upper() if isinstance(code, str) else ""
    hints = [f"did you mean {near}?"] if near in CURRENCIES else []
    hints += [more] if more else []
    raise ConfigError(
        f"{where} is {code!r}; expected a code of ISO 4217, such as USD, EUR or CNY"
        + (f"; {' '.join(hints)}" if hints else "")
    )
