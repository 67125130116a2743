"""Checks of what is published: the age of CRLs in the database, and what a relying party gets at the status URL."""

from __future__ import annotations

from collections.abc import Iterator

from vagus.addresses import join_address
from vagus.components import Components
from vagus.monitoring.http_fetch import HttpFetch
from vagus.monitoring.prober import Prober
from vagus.monitoring.status_watch import watch_crls
from vagus.operations.doctor.findings import Finding, State
from vagus.reasons import Reason


def check_status(components: Components) -> Iterator[Finding]:
    """A stale CRL locks out every good device, so it is reported long before."""
    with components.database.reading() as connection:
        watched = watch_crls(connection, components.pack, components.clock.now(), components.settings.keystores)
    for waits in watched.unpublished:
        yield Finding("CRL", State.FAILING, waits.sentence, waits.remedy)
    for one in watched.crls:
        if one.is_due:
            state = State.FAILING if one.seconds_left <= 0 else State.WARNING
            yield Finding("CRL", state, one.sentence, one.remedy)
    for reference in watched.expired_responders:
        remedy = f"vagus serve --issue-for {reference.partition('#')[0]}"
        yield Finding("OCSP", State.FAILING, f"the responder of {reference} expired", remedy)
    if watched.without_crl:
        named = ", ".join(watched.without_crl[:5])
        finding = f"{len(watched.without_crl)} authorities have published no CRL yet: {named}"
        yield Finding("CRL", State.WARNING, finding, "vagus serve --issue-for NAME")
    fresh = sum(not one.is_due for one in watched.crls)
    if fresh:
        yield Finding("CRL", State.WELL, f"{fresh} CRLs are fresh")


def check_published(components: Components, connect_to: tuple[str, int] | None) -> Iterator[Finding]:
    """What a relying party gets at the status URL, compared with the database."""
    if not components.settings.plan.exists():
        return
    url = components.status_url
    prober = Prober(
        components.pack,
        components.database,
        components.clock,
        components.entropy,
        HttpFetch(connect_to, seconds=3.0),
        status_url=url,
        writer=None,
    )
    asked = url if connect_to is None else f"{join_address(*connect_to)} for {url}"
    if not prober.is_reachable():
        finding = f"no server responds at {url}, where certificates say that CRLs and OCSP responses are"
        remedy = "vagus serve; or name its address: --status-address"
        if connect_to is not None:
            finding = f"no server responds at {join_address(*connect_to)}, which was asked in place of {url}"
            remedy = "vagus serve; --status-address names where it serves status over plain HTTP"
        yield Finding("published", State.WARNING, finding, remedy)
        return
    with components.database.reading() as connection:
        watched = watch_crls(connection, components.pack, components.clock.now(), components.settings.keystores)
    remedies = {f"{url}/crl/{one.slug}/{one.generation}": one.remedy for one in watched.unpublished}
    report = prober.probe()
    for one in report.defects:
        remedy = f"reason {one.reason.value}"
        if one.reason is Reason.STATUS_INCOMPLETE:
            remedy = remedies.get(one.place.rpartition("/")[0], remedy)
        yield Finding("published", State.FAILING, f"{one.place}: {one.sentence}", remedy)
    if not report.defects:
        finding = (
            f"{report.crls} CRLs and {report.responses} OCSP responses fetched from {asked} agree with the database"
        )
        yield Finding("published", State.WELL, finding)
