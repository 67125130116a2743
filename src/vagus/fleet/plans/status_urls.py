"""Which status URLs the certificates of an installation name, so that no plan moves away from them; changes nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from vagus.errors import Conflict
from vagus.reasons import Reason
from vagus.records import certificates
from vagus.records.authorities import ACTIVE, RETIRED, AuthorityRow, list_authorities
from vagus.records.revocation import status_facts
from vagus.x509 import extensions as ext
from vagus.x509.certificates import decode_certificate
from vagus.x509.extensions import access_locations
from vagus.x509.names.general import Form

if TYPE_CHECKING:
    from vagus.policy.plans import Plan
    from vagus.records.engine.database import Connection


def find_named_urls(connection: Connection, *, at: int) -> dict[str, str]:
    """Each status URL that a certificate names which has not ended at `at` (seconds since 1970), with a word of whose.

    Of each authority that signs CRLs the newest such certificate is read: all of them name one URL, because it does not
    change while one of them is valid. What an authority issued elsewhere is not known here.
    """
    found: dict[str, str] = {}
    for row in list_authorities(connection):
        if row.state not in {ACTIVE, RETIRED}:
            continue
        newest = status_facts.find_newest_alive(connection, row.id, alive_at=at)
        if newest is None:
            continue
        certificate_der = certificates.load_bytes(connection, newest.leaf_index)[1] or b""
        until = datetime.fromtimestamp(newest.not_after, UTC)
        for url in _named(row, certificate_der):
            found.setdefault(url, f"a certificate that {row.reference} has issued and that ends on {until:%Y-%m-%d}")
    return found


def _named(row: AuthorityRow, certificate_der: bytes) -> Iterator[str]:
    """The URL before the place of the issuer's own certificate, which each certificate but a root's names."""
    value = decode_certificate(certificate_der).value_of(ext.AUTHORITY_INFO_ACCESS)
    place = f"/ca/{row.slug}/{row.generation}.cer"
    for _, location in () if value is None else access_locations(value):
        if location.form is Form.URI and isinstance(location.value, str) and location.value.endswith(place):
            yield location.value.removesuffix(place)


def check_status_url(plan: Plan, named: Mapping[str, str]) -> None:
    """Raises Conflict(AUTHORITY_IN_USE) where certificates name another status URL than the plan.

    A CRL says in its IssuingDistributionPoint where it is. It does not apply to a certificate that names another place
    (RFC 5280 6.3.3 (b)(2)(i)): after a move, every relying party would refuse every issued certificate.
    """
    for url, whose in named.items():
        if url != plan.status_url:
            msg = (
                f"status_url is {url} in every issued certificate and cannot become {plan.status_url}: {whose} "
                f"names it, and no CRL from another place applies to it. Keep {url} in the plan and let its "
                f"name lead to the new place (DNS), or begin another installation"
            )
            raise Conflict(Reason.AUTHORITY_IN_USE, msg, status_url=url)
