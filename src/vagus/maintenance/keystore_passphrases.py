"""Changes the passphrases of an installation's keystores, and checks which passphrase opens which; signs nothing.

A process that serves keeps its opened keys in memory and goes on. What it would open or make anew is refused until it
is started with the new passphrase.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from vagus.components import EMERGENCY
from vagus.durable_files import FolderLocked, lock_folder
from vagus.errors import Malformed, NotAuthorised, Unavailable, VagusError
from vagus.keystore.resealing import change_passphrase, finish
from vagus.keystore.sealing import Derivation, Derivations
from vagus.keystore.software import SoftwareKeystore, read_derivation
from vagus.ledger.append import append
from vagus.ledger.entries import OperatorAct
from vagus.operations.roles import Act, check_may
from vagus.reasons import Reason
from vagus.records.authorities import slug_of

if TYPE_CHECKING:
    from vagus.components import Components
    from vagus.keystore.passphrases import Passphrase
    from vagus.keystore.sources import PassphraseSources
    from vagus.operations.actor import Actor

ALL: Final = "all"


@dataclass(frozen=True, slots=True)
class KeystoreReport:
    """What a check found in one keystore; `derivation` is None where its settings cannot be read."""

    name: str
    opens: bool | None
    """None: no source speaks for it, so nothing was tried."""
    derivation: Derivation | None
    keys: int
    problem: str = ""


@dataclass(frozen=True, slots=True)
class ChangedKeystore:
    """A keystore that the new passphrase opens; `was_changed` is False where it did before."""

    name: str
    keys: int
    was_changed: bool


def check_keystores(components: Components, actor: Actor) -> tuple[KeystoreReport, ...]:
    """Every keystore with the derivation that it really has, and whether its passphrase opens each of its keys."""
    check_may(actor, Act.CHECK_KEYSTORES)
    names = _list_names(components)
    components.derive_keys(names, lambda _done, _of: None)
    return tuple(_check(components, name) for name in names)


def change_passphrases(
    components: Components,
    actor: Actor,
    names: Sequence[str],
    new: PassphraseSources,
) -> tuple[ChangedKeystore, ...]:
    """Seal the named keystores ("all": each of this folder) under the passphrases of `new`; repeat it after a crash.

    Nothing is changed unless each of them opens with its present passphrase or already with its new one. Raises
    Malformed(BAD_ARGUMENT), NotAuthorised(PASSPHRASE_WRONG), Unavailable(KEY_NOT_OPEN, OVERLOADED) and what opening and
    resealing raise.
    """
    # 1. Who asks, and for which keystores?
    check_may(actor, Act.CHANGE_PASSPHRASE)
    chosen = _choose(components, names)
    try:
        with lock_folder(components.settings.keystores / ".lock", seconds=5.0):
            # 2. Open each of them; one that does not open stops all.
            derivations = Derivations()
            opened = [_open(components, name, new.get(name), derivations) for name in chosen]
            # 3. Change those that still have the old one.
            return tuple(_change(components, actor, one, opened, derivations) for one in opened)
    except FolderLocked:
        msg = "another command is at work on the keystores of this installation; try again when it has ended"
        raise Unavailable(Reason.OVERLOADED, msg) from None


@dataclass(slots=True)
class _Opened:
    name: str
    passphrase: Passphrase
    """The new one."""
    keystore: SoftwareKeystore
    is_new: bool
    """Whether the new one opened it."""


def _list_names(components: Components) -> tuple[str, ...]:
    folder = components.settings.keystores
    return tuple(path.parent.name.replace(".", "/") for path in sorted(folder.glob("*/keystore.toml")))


def _choose(components: Components, names: Sequence[str]) -> tuple[str, ...]:
    known = _list_names(components)
    if ALL in names:
        folder = components.settings.keystores
        if away := [path.name.replace(".", "/") for path in sorted(folder.iterdir()) if not path.exists()]:
            msg = f"keystore {away[0]} is a link that leads nowhere now; mount its medium, or name the other keystores"
            raise Unavailable(Reason.KEY_NOT_OPEN, msg, keystore=away[0])
        return known
    if EMERGENCY in names and EMERGENCY not in known:
        msg = (
            "emergency CRLs rest in sealed files, not in a keystore; remove those and hold a ceremony with the new one"
        )
        raise Malformed(Reason.BAD_ARGUMENT, msg)
    if missing := [name for name in names if name not in known]:
        msg = f"there is no keystore {missing[0]!r} in {components.settings.keystores}; there are {', '.join(known)}"
        raise Malformed(Reason.BAD_ARGUMENT, msg, keystore=missing[0])
    return tuple(dict.fromkeys(names))


def _open(components: Components, name: str, new: Passphrase, derivations: Derivations) -> _Opened:
    new.check_length()
    folder = components.settings.keystores / slug_of(name)
    old = components.sources.get(name)
    if new.is_same(old):
        msg = f"the new passphrase of keystore {name} is the present one; give another"
        raise Malformed(Reason.BAD_ARGUMENT, msg, keystore=name)
    try:
        return _Opened(name, new, SoftwareKeystore.open(folder, old, derive=derivations.derive), is_new=False)
    except NotAuthorised:
        # an earlier run of this command may have been cut off after it had changed this one
        try:
            return _Opened(name, new, SoftwareKeystore.open(folder, new, derive=derivations.derive), is_new=True)
        except NotAuthorised:
            msg = f"neither the present nor the new passphrase opens keystore {name}; nothing was changed: "
            msg += f"give its own, as in --passphrase-source {name}=fd:N"
            raise NotAuthorised(Reason.PASSPHRASE_WRONG, msg, keystore=name) from None


def _change(
    components: Components,
    actor: Actor,
    one: _Opened,
    opened: Sequence[_Opened],
    derivations: Derivations,
) -> ChangedKeystore:
    was_changed = not one.is_new
    if was_changed:
        # The entry comes first: a change without an entry would hide who made it, an entry without one is repeated.
        entry = OperatorAct("passphrase-changed", actor.id, subject=f"log:keystore-{slug_of(one.name)}")
        components.writer.submit(lambda batch: append(batch, entry)).result()
        derivation = _derivation_for(components, one, opened)
        one.keystore = change_passphrase(one.keystore, one.passphrase, derivation, derive=derivations.derive)
        one.is_new = True
    else:
        finish(one.keystore)
    return ChangedKeystore(one.name, len(one.keystore.key_ids()), was_changed)


def _derivation_for(components: Components, one: _Opened, opened: Sequence[_Opened]) -> Derivation:
    """That of another keystore which the same new passphrase opens (ADR 17), or a new one by the settings."""
    kdf, unsafe_fast = components.settings.kdf, components.settings.unsafe_fast_kdf
    shared = (
        other.keystore.derivation for other in opened if other.is_new and one.passphrase.is_same(other.passphrase)
    )
    found = next((each for each in shared if each.is_like(kdf, unsafe_fast=unsafe_fast)), None)
    return found or Derivation.choose(kdf, components.entropy, unsafe_fast=unsafe_fast)


def _check(components: Components, name: str) -> KeystoreReport:
    folder = components.settings.keystores / slug_of(name)
    derivation, keys = None, len(list(folder.glob("*.key")))
    try:
        derivation = read_derivation(folder)
        if components.sources.find(name) is None:
            return KeystoreReport(name, None, derivation, keys, "no passphrase source speaks for it")
        keystore = components.keystore(name)
        for key_id in keystore.key_ids():
            keystore.load(key_id)
    except VagusError as error:
        return KeystoreReport(name, False, derivation, keys, error.message)
    return KeystoreReport(name, True, derivation, keys)
