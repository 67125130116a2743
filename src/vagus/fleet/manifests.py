"""A maker's manifest, the file that says which devices it made, and its import into an inventory.

Whether a device is the one that the manifest names is proved by its IDevID under the maker's anchor, never here. The
operator vouches for the anchor. The manifest has its digest, so that the two files fit together.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from vagus.clock import Entropy
from vagus.errors import Conflict, Malformed
from vagus.fleet.devices import check_unit, insert_arriving
from vagus.fleet.inventory_entries import record_model
from vagus.fleet.lifecycle import DeviceState
from vagus.identifiers import DeviceId, UnitName
from vagus.ledger.append import append
from vagus.ledger.entries import OperatorAct
from vagus.reasons import Reason
from vagus.records.devices import FROM_MANIFEST, DeviceRow
from vagus.records.engine.writer import Batch
from vagus.records.models import MakerAnchorRow, ModelRow, find_model, put_maker_anchor
from vagus.records.plan_rows import list_known_serials
from vagus.texts import find_unseen

FORMAT = 1
KIND = "vagus-manifest"
_LARGEST = 64 * 1024 * 1024
_MOST = 1_000_000
_PART = 500
_COUNTS = ("known", "added", "unknown", "recalled", "held")


@dataclass(frozen=True, slots=True)
class MadeModel:
    """A product of the maker."""

    name: str
    category: str


@dataclass(frozen=True, slots=True)
class MadeDevice:
    """A device that left the line. The digest of its IDevID is for people; no code reads it."""

    model: str
    serial: str
    idevid_sha256: str | None = None


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a maker made."""

    maker: str
    anchor_sha256: bytes
    models: tuple[MadeModel, ...]
    devices: tuple[MadeDevice, ...]


@dataclass(frozen=True, slots=True)
class Imported:
    """What an import did: devices known before, added now, and left out because no unit was named for them.

    Of those added, `recalled` and `held` are of lots that are recalled or on hold, and so are they.
    """

    maker: str
    anchor_sha256: bytes
    models: tuple[str, ...]
    known: int
    added: int
    unknown: int
    recalled: int = 0
    held: int = 0

    def __add__(self, part: Imported) -> Imported:
        """What this and a further part of the same manifest did."""
        counts = {name: getattr(self, name) + getattr(part, name) for name in _COUNTS}
        return replace(self, **counts)


def encode_manifest(manifest: Manifest) -> bytes:
    """The manifest as a JSON file."""
    document = {
        "kind": KIND,
        "format": FORMAT,
        "maker": manifest.maker,
        "anchor_sha256": manifest.anchor_sha256.hex(),
        "models": [{"name": one.name, "category": one.category} for one in manifest.models],
        "devices": [
            {"model": one.model, "serial": one.serial, "idevid_sha256": one.idevid_sha256} for one in manifest.devices
        ],
    }
    return (json.dumps(document, indent=1, sort_keys=True, ensure_ascii=True) + "\n").encode("ascii")


def decode_manifest(raw: bytes) -> Manifest:
    """The manifest in a JSON file. Raises Malformed(BAD_ENCODING|BAD_VERSION|TOO_LARGE) saying what is wrong."""
    if len(raw) > _LARGEST:
        raise Malformed(Reason.TOO_LARGE, f"the maker's manifest exceeds {_LARGEST} bytes; ask the maker to split it")
    try:
        said: Any = json.loads(raw)
        if said["kind"] != KIND:
            raise _bad(f"the manifest's kind is not {KIND!r}")
        if said["format"] != FORMAT:
            msg = f"the manifest has format {said['format']!r}, and this program reads {FORMAT}; ask the maker for that"
            raise Malformed(Reason.BAD_VERSION, msg)
        models = tuple(MadeModel(_word(one["name"]), _word(one["category"])) for one in said["models"])
        devices = tuple(
            MadeDevice(_word(one["model"]), _word(one["serial"]), one.get("idevid_sha256")) for one in said["devices"]
        )
        manifest = Manifest(_word(said["maker"]), bytes.fromhex(_word(said["anchor_sha256"])), models, devices)
    except (ValueError, RecursionError):
        raise _bad("the manifest is not JSON, or a digest in it is not hexadecimal") from None
    except KeyError as fault:
        raise _bad(f"the manifest lacks the key {fault}") from None
    except (TypeError, AttributeError):
        raise _bad("a table or an array of the manifest has the wrong shape") from None
    _check(manifest)
    return manifest


def _check(manifest: Manifest) -> None:
    if len(manifest.devices) > _MOST:
        raise Malformed(Reason.TOO_MANY, f"the manifest has more than {_MOST} devices; ask the maker to split it")
    if len(manifest.anchor_sha256) != hashlib.sha256().digest_size:
        raise _bad("the manifest's anchor_sha256 is not the SHA-256 of a certificate")
    known = {model.name for model in manifest.models}
    for device in manifest.devices:
        if device.model not in known:
            raise _bad(f"device {device.serial!r} is of model {device.model!r}, which the manifest does not define")
    if len({(one.model, one.serial) for one in manifest.devices}) != len(manifest.devices):
        raise _bad("the manifest names a device twice")


class ManifestImport:
    """Imports a manifest into the inventory in parts. Each part is one transaction and may be repeated."""

    def __init__(self, manifest: Manifest, anchor_der: bytes, profile_of: Callable[[str], str | None]) -> None:
        """Raises Conflict(KEY_MISMATCH) when `anchor_der` is not the anchor that the manifest was made under."""
        if hashlib.sha256(anchor_der).digest() != manifest.anchor_sha256:
            msg = "the manifest was made under another anchor than given; ask the maker for its root certificate"
            raise Conflict(Reason.KEY_MISMATCH, msg, anchor=manifest.anchor_sha256.hex())
        self.manifest = manifest
        self._anchor_der = anchor_der
        self._profile_of = profile_of

    def parts(self) -> Sequence[Sequence[MadeDevice]]:
        """The devices in parts of one transaction each."""
        devices = self.manifest.devices
        return [devices[at : at + _PART] for at in range(0, len(devices), _PART)]

    def bind(self, batch: Batch, *, by: str) -> tuple[str, ...]:
        """Store the anchor and let it vouch for the maker's models. Returns the models that it vouches for now.

        Raises Conflict(ALREADY_EXISTS) when a model belongs to another maker or another anchor vouches for it,
        Malformed(BAD_REQUEST) for a category that the policy pack does not know.
        """
        made = self.manifest
        anchor = MakerAnchorRow(made.anchor_sha256, made.maker, self._anchor_der, added_at=batch.at)
        is_news = put_maker_anchor(batch.connection, anchor)
        for model in made.models:
            before = find_model(batch.connection, model.name)
            if before is not None and before.maker != made.maker:
                msg = f"model {model.name} belongs to maker {before.maker}, not to {made.maker}; correct the plan"
                raise Conflict(Reason.ALREADY_EXISTS, msg, model=model.name)
            if before is not None and before.anchor_sha256 not in {None, made.anchor_sha256}:
                msg = f"model {model.name} has another maker's anchor already; name a new one in the plan to change it"
                raise Conflict(Reason.ALREADY_EXISTS, msg, model=model.name)
            category = model.category if before is None else before.category
            profile = self._profile_of(category) if before is None else before.profile
            if profile is None:
                msg = f"the policy pack has no rule for category {category!r} of model {model.name}; add one"
                raise Malformed(Reason.BAD_REQUEST, msg, category=category)
            after = ModelRow(model.name, made.maker, category, profile, made.anchor_sha256)
            is_news |= record_model(batch, after, by=by)
        if is_news:
            append(batch, OperatorAct("maker-anchor-bound", by, detail_sha256=made.anchor_sha256))
        return tuple(model.name for model in made.models)

    def take(
        self, batch: Batch, part: Sequence[MadeDevice], unit: UnitName | None, entropy: Entropy, *, by: str
    ) -> Imported:
        """Add the devices of `part` that are not in the inventory to `unit`; gives what this part did.

        With `unit` None nothing is added. Raises Malformed(BAD_ARGUMENT) for an unknown unit.
        """
        if unit is not None:
            check_unit(batch.connection, unit)
        fresh: list[MadeDevice] = []
        for model in dict.fromkeys(one.model for one in part):
            of_model = [one for one in part if one.model == model]
            known = list_known_serials(batch.connection, model, [one.serial for one in of_model])
            fresh += [one for one in of_model if one.serial not in known]
        arrived: tuple[DeviceRow, ...] = ()
        if unit is not None:
            profiles = {model.name: find_model(batch.connection, model.name) for model in self.manifest.models}
            rows = [
                DeviceRow(
                    id=DeviceId.draw(entropy),
                    unit=unit,
                    model=one.model,
                    profile=known_model.profile,
                    maker_serial=one.serial,
                    state=DeviceState.RECEIVED,
                    added_at=batch.at,
                    changed_at=batch.at,
                    origin=FROM_MANIFEST,
                )
                for one in fresh
                if (known_model := profiles[one.model]) is not None
            ]
            arrived = insert_arriving(batch, rows, by=by)
        return Imported(
            self.manifest.maker,
            self.manifest.anchor_sha256,
            tuple(one.name for one in self.manifest.models),
            known=len(part) - len(fresh),
            added=len(arrived),
            unknown=len(fresh) - len(arrived),
            recalled=sum(one.state == DeviceState.RECALLED for one in arrived),
            held=sum(one.held_at is not None for one in arrived),
        )


def _word(value: object) -> str:
    if not isinstance(value, str) or not 0 < len(value) <= 80 or find_unseen(value):
        raise _bad(f"value {value!r:.100} of the manifest is not 1-80 printable characters")
    return value


def _bad(finding: str) -> Malformed:
    return Malformed(Reason.BAD_ENCODING, f"{finding}; ask the maker for another copy of the manifest")
