"""What makers say of the birth certificates of their devices: the lists in an installation's folder; fetches none."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from vagus.trust.crl_status import CrlStatus
from vagus.x509.paths import ValidPath


@dataclass(frozen=True, slots=True)
class MakersStatus:
    """What is known of birth certificates' status: a maker's lists where its files are here, else the inventory alone.

    802.1AR asks for no revocation of IDevIDs, and a hospital that cannot reach a maker must still enrol. A list that is
    here binds whatever else is missing: a root's list that revokes a line CA refuses every device of that line, also
    without a list by the line CA itself.
    """

    lists: CrlStatus | None

    def check_path_status(self, path: ValidPath, at: datetime) -> None:
        """Raises NotTrusted as the lists say; an issuer of whom no list is here passes."""
        if self.lists is not None:
            self.lists.check_listed_path(path, at)
