"""Currencies: the codes of ISO 4217, how small their smallest unit is, and the IRIs by which policies name them."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from types import MappingProxyType
from typing import Final

from connector.errors import PolicyError
from connector.odrl.vocabulary import CURRENCIES

# ISO 4217, list one, as amended up to 2026: the currencies that people pay with, by the decimal places of their minor unit. Those without
# one (metals, funds without a minor unit, codes for tests) are no means of payment and are not here.
_CODES: Final[Mapping[int, str]] = {
    0: "BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX UYI VND VUV XAF XOF XPF",
    2: "AED AFN ALL AMD AOA ARS AUD AWG AZN BAM BBD BDT BMD BND BOB BOV BRL BSD BTN BWP BYN BZD CAD CDF CHE CHF CHW CNY COP COU CRC CUP "
    "CVE CZK DKK DOP DZD EGP ERN ETB EUR FJD FKP GBP GEL GHS GIP GMD GTQ GYD HKD HNL HTG HUF IDR ILS INR IRR JMD KES KGS KHR KPW KYD KZT "
    "LAK LBP LKR LRD LSL MAD MDL MGA MKD MMK MNT MOP MRU MUR MVR MWK MXN MXV MYR MZN NAD NGN NIO NOK NPR NZD PAB PEN PGK PHP PKR PLN QAR "
    "RON RSD RUB SAR SBD SCR SDG SEK SGD SHP SLE SOS SRD SSP STN SVC SYP SZL THB TJS TMT TOP TRY TTD TWD TZS UAH USD USN UYU UZS VED VES "
    "WST XCD XCG YER ZAR ZMW ZWG",
    3: "BHD IQD JOD KWD LYD OMR TND",
    4: "CLF UYW",
}
PLACES: Final[Mapping[str, int]] = MappingProxyType({code: places for places, codes in _CODES.items() for code in codes.split()})

PLACES_MAX: Final = 60  # of an amount; a price has 12, and what its unit is divided into some more

CURRENCY: Final = CURRENCIES[0]  # as we write it ourselves
# Two of DBpedia that examples of ODRL and IDS have.
_OTHERS: Final[Mapping[str, str]] = {"http://dbpedia.org/resource/Euro": "EUR", "http://dbpedia.org/resource/Renminbi": "CNY"}


def currency_of(iri: str) -> str:
    """The code of the currency that an IRI names. Raises PolicyError, whose text says what would do."""
    code = _OTHERS.get(iri, "") or next((iri[len(prefix) :] for prefix in CURRENCIES if iri.startswith(prefix)), "")
    if code not in PLACES:
        raise PolicyError(f"`{iri[:200]}` names no currency of ISO 4217; write it like `{CURRENCY}EUR`")
    return code


def decimal(minor: int, currency: str) -> str:
    """An amount of minor units as it is written: 1234 of EUR is `12.34`, of JPY `1234`."""
    return exactly(Fraction(minor, 10 ** PLACES[currency]), currency)


def exactly(amount: Fraction | int, currency: str) -> str:
    """An amount as it is, with the places of its currency at the least: 1/8 of EUR is `0.125`, 1/2 `0.50`. ValueError for one that has no
    end in decimals: no price has."""
    places, denominator = PLACES[currency], Fraction(amount).denominator
    while denominator != 1 and 10**places % denominator:
        if places > PLACES_MAX:
            raise ValueError(f"{amount} has no end in decimals")
        places += 1
    scaled = int(amount * 10**places)
    sign, digits = "-" if scaled < 0 else "", str(abs(scaled)).rjust(places + 1, "0")
    return f"{sign}{digits[: len(digits) - places]}.{digits[len(digits) - places :]}" if places else f"{sign}{digits}"
