"""Every check of `python -m tests.cases`, one module for each kind; a check that is not here does not run."""

from __future__ import annotations

from tests.cases import (
    compressed_points,
    crl_orders,
    est_bodies,
    host_names,
    http_requests,
    line_requests,
    old_crls,
    plan_files,
    takeovers,
)
from tests.cases.case import Check

CHECKS: tuple[Check, ...] = (
    *est_bodies.CHECKS,
    *compressed_points.CHECKS,
    *http_requests.CHECKS,
    *crl_orders.CHECKS,
    *host_names.CHECKS,
    *line_requests.CHECKS,
    *takeovers.CHECKS,
    *old_crls.CHECKS,
    *plan_files.CHECKS,
)
