"""The typer options of `vagus cert find`: each names one thing that may be known of a certificate."""

from __future__ import annotations

from typing import Annotated, TypeAlias

import typer

_Text: TypeAlias = str | None
_DATE = "ISO 8601 in UTC, as in 2027-03-01 or 2027-03-01T12:00:00Z"


def _option(metavar: str, purpose: str) -> object:
    return typer.Option(metavar=metavar, help=purpose)


Serial = Annotated[_Text, _option("SERIAL", "Hexadecimal (0x4A01, 4A:01) or decimal (dec:18945); digits alone: both.")]
Subject = Annotated[_Text, _option("NAME", "Its common name or serial number, or the whole subject as printed.")]
San = Annotated[_Text, _option("NAME", "One name of its subjectAltName.")]
Device = Annotated[_Text, _option("DEVICE", "A device id, or MODEL:SERIAL.")]
Unit = Annotated[_Text, _option("HOSPITAL/UNIT", "Of devices that are in this unit now.")]
Category = Annotated[_Text, _option("CATEGORY", "Of devices of this category, as in ventilator.")]
ProfileName = Annotated[_Text, _option("PROFILE", "A profile of the policy pack.")]
Algorithm = Annotated[_Text, _option("KEY", "The kind of its key, as in p256, rsa3072 or mldsa65.")]
Issuer = Annotated[_Text, _option("AUTHORITY", "As in h1/icu, or h1/icu#2 for one generation.")]
Fingerprint = Annotated[
    _Text, _option("SHA256", "The SHA-256 of its DER, or its first digits: messages print 16 of them.")
]
IssuedAfter = Annotated[_Text, _option("DATE", f"notBefore from then on; {_DATE}.")]
IssuedBefore = Annotated[_Text, _option("DATE", "notBefore before then.")]
ExpiresAfter = Annotated[_Text, _option("DATE", "notAfter from then on.")]
ExpiresBefore = Annotated[_Text, _option("DATE", "notAfter before then.")]
ExpiresWithin = Annotated[_Text, _option("PERIOD", "Has not ended, and ends within this time: 60d.")]
State = Annotated[_Text, _option("STATE", "intended, issued, revoked or held; expired is any that has ended.")]
