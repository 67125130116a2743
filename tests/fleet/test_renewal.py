"""When certificates are to be renewed: windows by policy, spread over a fleet, none for what never expires."""

from __future__ import annotations

from datetime import timedelta

import pytest

from tests.simulator.enrolment import Site
from tests.simulator.installation import pack
from tests.simulator.presence import present
from vagus.fleet.renewal import RenewalWindow, window_for
from vagus.x509.certificates import PathCertificate, decode_certificate


def _window(certificate: PathCertificate) -> RenewalWindow:
    return present(window_for(certificate, pack()))


@pytest.fixture(scope="module")
def certificate(hospital: Site) -> PathCertificate:
    return decode_certificate(hospital.enrol(hospital.stock.add("W-1")).der)


def test_the_window_opens_sixty_days_before_the_end_and_is_critical_at_thirty(certificate: PathCertificate) -> None:
    window = _window(certificate)
    assert window.ends == certificate.not_after
    assert window.ends - window.opens == timedelta(days=60)
    assert window.ends - window.critical == timedelta(days=30)
    assert window.opens <= window.suggested < window.critical


def test_in_and_out_of_the_window(certificate: PathCertificate) -> None:
    window, second = _window(certificate), timedelta(seconds=1)
    assert not window.is_open(window.opens - second)
    assert window.is_open(window.opens)
    assert not window.is_critical(window.critical - second)
    assert window.is_critical(window.critical)
    assert not window.is_open(window.ends)
    assert not window.is_critical(window.ends)


def test_a_short_life_has_a_short_window(hospital: Site, certificate: PathCertificate) -> None:
    short = decode_certificate(
        hospital.forge.copy(certificate.der, hospital.units["h1/icu"], lifetime=timedelta(hours=8))
    )
    window = _window(short)
    assert timedelta() < window.ends - window.opens <= timedelta(hours=8) * pack().renewal.short_share / 100
    assert window.opens < window.critical < window.ends


def test_a_fleet_is_spread_and_each_time_stays_the_same(hospital: Site, certificate: PathCertificate) -> None:
    fleet = [decode_certificate(hospital.forge.copy(certificate.der, hospital.units["h1/icu"])) for _ in range(40)]
    moments = [_window(one).suggested for one in fleet]
    assert moments == [_window(one).suggested for one in fleet]
    assert len(set(moments)) == len(fleet)
    assert max(moments) - min(moments) > timedelta(days=7)


def test_what_never_expires_is_never_renewed(hospital: Site) -> None:
    birth, _ = hospital.forge.birth_certificate(hospital.line, "W-2")
    assert window_for(decode_certificate(birth), pack()) is None
