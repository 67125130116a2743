"""One-time enrolment tokens: made for one device, bound to the first key that comes with them; issues nothing."""

from __future__ import annotations

import base64
import hashlib
from concurrent.futures import Future
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final

from vagus.clock import Entropy
from vagus.errors import Malformed, NotAuthorised
from vagus.fleet.devices import load_device
from vagus.fleet.lifecycle import MAY_ENROL, DeviceState, check_may
from vagus.identifiers import DeviceId
from vagus.ledger.append import append
from vagus.ledger.entries import TokenMade, TokenSpent
from vagus.reasons import Reason
from vagus.records.engine.writer import Batch, Writer
from vagus.records.tokens import TokenRow, bind_token, insert_token

REPEAT: Final = timedelta(hours=1)
"""How long after its first use a token gives the same key the same certificate."""

LONGEST_LIFE: Final = timedelta(days=90)
DEFAULT_LIFE: Final = timedelta(days=7)

SERVER_LABEL: Final = "server"
"""The label under which a gateway or station asks for what it shows as a server."""
SDC_LABEL: Final = "sdc"
"""The label under which a device asks for what it shows to SDC peers (IEEE 11073-20701)."""

_BYTES = 20  # an enrolment token has 160 random bits: 32 base32 characters without padding
_CHARACTERS = 32


@dataclass(frozen=True, slots=True)
class MadeToken:
    """A token as its maker sees it once; afterwards only its hash exists."""

    device_id: DeviceId
    expires_at: int
    text: str = field(repr=False)


def draw_token(entropy: Entropy) -> str:
    """A new token: 160 random bits as 32 lower-case base32 characters, which survive being read out aloud."""
    return base64.b32encode(entropy(_BYTES)).decode("ascii").lower()


def hash_token(text: str, label: str | None = None) -> bytes:
    """The hash by which a token is known; case and the hyphens that people put between groups do not count.

    A token for both certificates of a server has a second hash, for its use under the label.
    Raises NotAuthorised(TOKEN_INVALID) for what cannot be a token.
    """
    compact = text.strip().replace("-", "").lower()
    if len(compact) != _CHARACTERS or not compact.isascii() or not compact.isalnum():
        raise _unknown()
    return hashlib.sha256((compact if label is None else f"{label}:{compact}").encode("ascii")).digest()


class TokenIssuer:
    """Makes tokens. The caller gets the text once; only its hash is stored."""

    def __init__(self, writer: Writer, entropy: Entropy, *, life: timedelta = DEFAULT_LIFE) -> None:
        """`life` is that of tokens for which none is asked: the policy's."""
        self._writer = writer
        self._entropy = entropy
        self._life = life

    def make(
        self, device_id: DeviceId, *, by: str, life: timedelta | None = None, is_for_both: bool = False
    ) -> Future[MadeToken]:
        """A token for a device that may enrol; the future resolves after the commit.

        A token `is_for_both` has two uses, each bound to the first key that comes with it: one for the device's
        certificate and one for its server certificate. Raises Malformed(BAD_ARGUMENT) for a life above 90 days; the
        future NotAuthorised(NOT_IN_INVENTORY), Conflict(DEVICE_STATE), and Malformed(BAD_ARGUMENT) for both uses of a
        device without host names.
        """
        given = self._life if life is None else life
        if not timedelta(minutes=1) <= given <= LONGEST_LIFE:
            msg = f"a token lifetime of {given} is outside 1 minute to {LONGEST_LIFE.days} days; choose a shorter one"
            raise Malformed(Reason.BAD_ARGUMENT, msg)
        text = draw_token(self._entropy)
        return self._writer.submit(
            lambda batch: make_token(batch, text, device_id, life=given, by=by, is_for_both=is_for_both)
        )


def make_token(
    batch: Batch, text: str, device_id: DeviceId, *, life: timedelta, by: str, is_for_both: bool = False
) -> MadeToken:
    """Write a drawn token down, inside a writer act; `is_for_both` as `TokenIssuer.make` has it."""
    device = load_device(batch.connection, device_id)
    check_may(DeviceState(device.state), MAY_ENROL, "enrol")
    if is_for_both and not device.host_names:
        msg = "the device has no host names, so it gets no server certificate; add host names, or leave the option out"
        raise Malformed(Reason.BAD_ARGUMENT, msg, device=str(device_id))
    expires_at = batch.at + int(life.total_seconds())
    for label in (None, SERVER_LABEL) if is_for_both else (None,):
        row = TokenRow(hash_token(text, label), device_id, batch.at, expires_at)
        insert_token(batch.connection, row)
        append(batch, TokenMade(row.token_sha256, f"device:{device_id}", expires_at, by))
    return MadeToken(device_id, expires_at, text)


def check_token(row: TokenRow | None, spki_sha256: bytes, *, at: int, repeat: timedelta = REPEAT) -> TokenRow:
    """The token, if this key may spend or repeat it at `at`; nothing is written.

    Checked before the certificate is prepared, and again inside the writer's transaction. The second check is final,
    because the writer runs one act after the other.
    Raises NotAuthorised(TOKEN_INVALID|TOKEN_EXPIRED|TOKEN_REUSED).
    """
    if row is None:
        raise _unknown()
    device = str(row.device_id)
    # 1. An unused token is checked for its expiry alone.
    if row.bound_spki_sha256 is None or row.used_at is None:
        if at >= row.expires_at:
            raise NotAuthorised(Reason.TOKEN_EXPIRED, "the enrolment token expired; get a new one", device=device)
        return row
    # 2. A token that was used with another key was stolen. The reason code is its own, not expiry, because operators
    # alarm on it.
    if row.bound_spki_sha256 != spki_sha256:
        msg = "the enrolment token was used with another key, so it may be stolen; report it, and have a new one made"
        raise NotAuthorised(Reason.TOKEN_REUSED, msg, device=device)
    # 3. The same key again: the first response may have been lost, so the token is accepted once more for an hour.
    if at - row.used_at > repeat.total_seconds():
        msg = f"the token was used more than {int(repeat.total_seconds()) // 60} minutes ago; have a new one made"
        raise NotAuthorised(Reason.TOKEN_EXPIRED, msg, device=device)
    return row


def spend_token(batch: Batch, row: TokenRow, spki_sha256: bytes, *, request_id: str | None = None) -> None:
    """Bind the token to the key, in the writer act that recorded the intent of `request_id`: both or neither.

    A token that this key has spent before stays as it is.
    """
    if row.bound_spki_sha256 is None:
        bind_token(batch.connection, row.token_sha256, spki_sha256, request_id=request_id, at=batch.at)
        append(batch, TokenSpent(row.token_sha256, f"device:{row.device_id}", spki_sha256))


def _unknown() -> NotAuthorised:
    return NotAuthorised(Reason.TOKEN_INVALID, "there is no such enrolment token; check its 32 characters")
