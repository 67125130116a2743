"""Files sealed under a passphrase apart from every key: emergency CRLs; knows nothing of their content.

Many envelopes made together share one derivation, so that opening and making stay cheap.
"""

from __future__ import annotations

import base64
import binascii
import json
from typing import TYPE_CHECKING, cast

from vagus.errors import IntegrityFailure, Malformed
from vagus.keystore.sealing import Derivation, Kdf, Wrapping, canonical
from vagus.reasons import Reason

if TYPE_CHECKING:
    from collections.abc import Mapping

    from vagus.clock import Entropy
    from vagus.keystore.passphrases import Passphrase

_FORMAT = 1


class EnvelopeSealer:
    """Seals any number of envelopes under one passphrase."""

    def __init__(
        self, passphrase: Passphrase, *, entropy: Entropy, kdf: Kdf = "scrypt", unsafe_fast: bool = False
    ) -> None:
        passphrase.check_length()
        self._derivation = Derivation.choose(kdf, entropy, unsafe_fast=unsafe_fast)
        self._wrapping: Wrapping = self._derivation.derive(passphrase)

    def seal(self, label: Mapping[str, str | int], content: bytes) -> bytes:
        """An envelope whose `label` anyone can read and none can change unnoticed."""
        header = {
            "format": _FORMAT,
            "kdf": self._derivation.kdf,
            "cost": self._derivation.cost,
            "salt": self._derivation.salt.hex(),
            "label": dict(label),
        }
        probe = self._wrapping.probe(header)
        sealed = self._wrapping.seal(header, content)
        return canonical({"header": header, "probe": probe.hex(), "sealed": base64.b64encode(sealed).decode("ascii")})


def read_label(envelope: bytes) -> dict[str, str | int]:
    """What is written on the envelope, not yet proved. Raises IntegrityFailure(KEYSTORE_DAMAGED)."""
    try:
        return dict(json.loads(envelope)["header"]["label"])
    except (ValueError, KeyError, TypeError, RecursionError):
        raise _damaged() from None


def open_envelope(envelope: bytes, passphrase: Passphrase) -> tuple[dict[str, str | int], bytes]:
    """Label and content. Raises NotAuthorised(PASSPHRASE_WRONG), IntegrityFailure(KEYSTORE_DAMAGED)."""
    try:
        found = json.loads(envelope)
        header = cast("dict[str, object]", found["header"])
        probe, sealed = bytes.fromhex(found["probe"]), base64.b64decode(found["sealed"], validate=True)
        derivation = Derivation(
            cast("Kdf", header["kdf"]), int(cast("int", header["cost"])), bytes.fromhex(str(header["salt"]))
        )
        label = dict(cast("dict[str, str | int]", header["label"]))
    except (ValueError, KeyError, TypeError, binascii.Error, RecursionError, Malformed):
        raise _damaged() from None
    wrapping = derivation.derive(passphrase)
    wrapping.check_probe(header, probe, "this envelope")
    return label, wrapping.open(header, sealed)


def _damaged() -> IntegrityFailure:
    return IntegrityFailure(Reason.KEYSTORE_DAMAGED, "this is no sealed envelope of ours, or it is damaged; restore it")
