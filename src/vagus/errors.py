"""The whole error tree, each error with a stable reason code and facts; maps nothing to a protocol.

VagusError
├── Malformed          bytes or text that do not decode: the sender's fault, never worth a retry
├── Misconfigured      a file written by people is wrong: file, key, remedy
├── Refused            understood, and not allowed
│   ├── NotTrusted     the verifier refused a peer, a certificate or a status
│   ├── NotAuthorised  the caller may not do this
│   ├── PolicyRefusal  the policy pack forbids what was asked
│   └── Conflict       the state of a device, token, key or authority forbids it now
├── LimitExceeded      a stated bound on size, count or rate was passed
├── Unavailable        not possible now; the same request may succeed later
└── IntegrityFailure   our own data contradict each other: stop and investigate
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from vagus.reasons import Reason

Fact = str | int | None


class VagusError(Exception):
    """An error of this installation: a sentence for people, a reason for programs, facts for both.

    The sentence gives limit, value and remedy ("lifetime 400 d exceeds the 365 d that profile
    infusion-pump allows; ask for less or change the profile"). Facts never hold secrets.
    """

    is_peer_proved = False
    """Whether the refusal is of a peer whose certificate our anchors vouch for: its name and serial are facts then.

    The verifier sets it on the errors that it raises. Where it is False, a peer only claims what its certificate says.
    """

    def __init__(self, reason: Reason, message: str, /, **facts: Fact) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.facts: Mapping[str, Fact] = MappingProxyType(facts)

    def __str__(self) -> str:
        return self.message


class Malformed(VagusError):
    """Bytes or text that do not decode."""


class Misconfigured(VagusError):
    """A file that people wrote is wrong; the message names file, key and remedy."""


class Refused(VagusError):
    """Understood, and not allowed."""


class NotTrusted(Refused):
    """The verifier refused."""


class NotAuthorised(Refused):
    """The caller may not do this."""


class PolicyRefusal(Refused):
    """The policy pack forbids what was asked."""


class Conflict(Refused):
    """The present state forbids it."""


class LimitExceeded(VagusError):
    """A stated bound was passed."""


class Unavailable(VagusError):
    """Not possible now; a later try may succeed."""


class IntegrityFailure(VagusError):
    """Our own data contradict each other."""
