"""The bill of materials (SBOM) of the installed program as CycloneDX 1.6 JSON (ECMA-424); opens no installation.

Where its contents come from:

- names, versions, licences, suppliers, dependencies: the metadata of the installed packages
- hashes: lock files of pip, which must name each package in the version that is installed
- libraries that are compiled into a package, such as OpenSSL: the SBOMs in the package (PEP 770)
- the Python runtime, its SQLite and its OpenSSL: their own version numbers

The same installation gives the same bytes: no clock is read, and the serial number is derived from the contents.

The library `cyclonedx-python-lib` is not used: it models every version of the standard, and brings packages of its own
that would then stand in the bill. What it would save is the encoding of five members.
"""

from __future__ import annotations

import hashlib
import json
import platform
import re
import sqlite3
import ssl
import sys
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from urllib.parse import quote

from vagus.errors import Malformed, Misconfigured
from vagus.reasons import Reason
from vagus.texts import without_mark

_PROGRAM = "vagus"
_EXTRAS = frozenset({"postgres", "hsm", "reports"})
"""What a server may have beside the program's own dependencies; it counts where it is installed."""
_SCHEMA = "http://cyclonedx.org/schema/bom-1.6.schema.json"
_COPIED = ("type", "name", "version", "purl", "hashes", "licenses")
"""The members that are taken over from SBOMs in packages: CycloneDX 1.4 to 1.6 have them in the same form."""

_NAME = r"([A-Za-z0-9][A-Za-z0-9._-]*)"
_REQUIREMENT = re.compile(_NAME + r"\s*(?:\[([^\]]*)\])?[^;]*(?:;(.*))?")
_EXTRA = re.compile(r"""extra\s*==\s*["']([^"']+)["']""")
_WINDOWS = re.compile(r"""(?:sys_platform|platform_system|os_name)\s*==\s*["'](?:win32|Windows|nt)["']""")
_PIN = re.compile(_NAME + r"==([^\s;\\]+)")
_HASH = re.compile(r"--hash=sha256:([0-9a-f]{64})\b")
_SPDX = re.compile(r"(?:MIT|ISC|MPL-2\.0|Apache-2\.0|BSD-[23]-Clause)(?: OR (?:Apache-2\.0|BSD-[23]-Clause))?\Z")
"""Values of the old metadata field License that are licence expressions as they stand."""

_Json = dict[str, object]
Lock = Mapping[str, tuple[str, tuple[str, ...]]]
"""Package name to its locked version and the SHA-256 hashes of its files."""


def decode_lock(raw: bytes) -> Lock:
    """The pins of a lock file, as `pip install --require-hashes` reads it.

    Raises Malformed(BAD_ARGUMENT) for a file without any.
    """
    lines = without_mark(raw).decode("utf-8", "replace").replace("\\\r\n", " ").replace("\\\n", " ").splitlines()
    found = ((_PIN.match(line), tuple(sorted(_HASH.findall(line)))) for line in lines)
    lock = {_normal(pin[1]): (pin[2], hashes) for pin, hashes in found if pin is not None and hashes}
    if not lock:
        msg = "no line reads NAME==VERSION --hash=sha256:...; name the lock file that Vagus was installed from"
        raise Malformed(Reason.BAD_ARGUMENT, msg)
    return lock


def make_bill(locks: Sequence[Lock], made_at: int | None) -> bytes:
    """The SBOM of this program. `made_at` is its timestamp in seconds since 1970; None: it has none.

    Without `locks` it has no hashes of packages. Raises Malformed(BAD_ARGUMENT) for a package that no lock has in its
    installed version, Misconfigured(BAD_SETTINGS) for one that is missing or has an SBOM that cannot be read.
    """
    packages, needs = _collect()
    refs = {name: _purl(package) for name, package in packages.items()}
    components, depends = {}, {refs[name]: {refs[need] for need in needs[name]} for name in packages}
    for name, package in packages.items():
        hashes = () if name == _PROGRAM else _find_hashes(package, locks)
        components[refs[name]] = made = _component(package, hashes)
        _nest(made, _embedded(package), depends)
    runtime = _named("platform", sys.implementation.name, platform.python_version())
    library, _, rest = ssl.OPENSSL_VERSION.partition(" ")
    linked = (("sqlite", sqlite3.sqlite_version), (library.lower(), rest.partition(" ")[0]))
    _nest(runtime, [_named("library", *one) for one in linked], depends)
    program = components.pop(refs[_PROGRAM])
    components[str(runtime["purl"])] = runtime
    depends[refs[_PROGRAM]].add(str(runtime["purl"]))
    bill: _Json = {
        "$schema": _SCHEMA,
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"component": program | {"type": "application"}},
        "components": [components[ref] for ref in sorted(components)],
        "dependencies": [{"ref": ref, "dependsOn": sorted(depends[ref])} for ref in sorted(depends)],
    }
    if made_at is not None:
        bill["metadata"] = {"component": program | {"type": "application"}, "timestamp": _spell(made_at)}
    digest = hashlib.sha256(_encode(bill)).hexdigest()
    return _encode(bill | {"serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, digest)}"})


def _collect() -> tuple[dict[str, Distribution], dict[str, set[str]]]:
    """The program and every package that it needs, by name, and the names of what each needs."""
    packages: dict[str, Distribution] = {}
    needs: dict[str, set[str]] = {}
    seen, waiting = set(), [(_PROGRAM, _EXTRAS)]
    while waiting:
        name, extras = waiting.pop()
        if (name, extras) in seen:
            continue
        seen.add((name, extras))
        package = packages.setdefault(name, _find(name))
        found = dict(_requirements(package, extras))
        needs.setdefault(name, set()).update(found)
        waiting += found.items()
    return packages, needs


def _find(name: str) -> Distribution:
    try:
        return distribution(name)
    except PackageNotFoundError:
        msg = f"package {name} is not installed as Python metadata says it must be; install Vagus again with pip"
        raise Misconfigured(Reason.BAD_SETTINGS, msg, package=name) from None


def _requirements(package: Distribution, extras: frozenset[str]) -> Iterator[tuple[str, frozenset[str]]]:
    """What a package needs with these extras, each with its own extras.

    A requirement with another condition (a Python version, a platform) counts where it is installed; one for Windows
    never does, since Vagus does not run there.
    """
    for text in package.requires or ():
        read = _REQUIREMENT.match(text)
        if read is None:
            continue
        name, condition = _normal(read[1]), read[3] or ""
        asked = set(_EXTRA.findall(condition))
        if (asked and not asked & extras) or _WINDOWS.search(condition):
            continue
        if condition:
            try:
                distribution(name)
            except PackageNotFoundError:
                continue
        yield name, frozenset(one.strip() for one in (read[2] or "").split(",") if one.strip())


def _component(package: Distribution, hashes: Iterable[str]) -> _Json:
    purl = _purl(package)
    made: _Json = {"type": "library", "bom-ref": purl, "purl": purl}
    made |= {"name": package.metadata["Name"], "version": package.version}
    if summary := _first(package, "Summary"):
        made["description"] = summary
    if supplier := re.sub(r"\s*<[^>]*>|\"", "", _first(package, "Author", "Author-email", "Maintainer")):
        made["supplier"] = {"name": supplier}
    if licences := _licences(package):
        made["licenses"] = licences
    if found := [{"alg": "SHA-256", "content": one} for one in hashes]:
        comment = "the files of this version that the lock file allows to be installed"
        made["externalReferences"] = [{"type": "distribution", "url": purl, "comment": comment, "hashes": found}]
    return made


def _licences(package: Distribution) -> list[_Json]:
    expression, old = _first(package, "License-Expression"), _first(package, "License")
    if expression or _SPDX.match(old):
        return [{"expression": expression or old}]
    classes = [one for one in package.metadata.get_all("Classifier") or () if one.startswith("License ::")]
    named = [one.rpartition("::")[2].strip() for one in classes] or [line for line in old.splitlines()[:1] if line]
    return [{"license": {"name": one}} for one in sorted(named)]


def _find_hashes(package: Distribution, locks: Sequence[Lock]) -> tuple[str, ...]:
    """Raises Malformed(BAD_ARGUMENT) where locks are given and none has this package in this version."""
    name = _normal(package.metadata["Name"])
    pins = [lock[name] for lock in locks if name in lock]
    for version, hashes in pins:
        if version == package.version:
            return hashes
    if not locks:
        return ()
    locked = f"locks version {pins[0][0]}" if pins else "does not lock it"
    msg = f"{name} {package.version} is installed, and the lock file {locked}; name the file it was installed from"
    raise Malformed(Reason.BAD_ARGUMENT, msg, package=name, installed=package.version)


def _embedded(package: Distribution) -> Iterator[_Json]:
    """The components of the SBOMs in a package, without the package itself. Raises Misconfigured(BAD_SETTINGS)."""
    for file in package.files or ():
        if file.parent.name != "sboms" or file.suffix != ".json":
            continue
        try:
            bill = json.loads(file.read_text(encoding="utf-8"))
            for one in bill.get("components", ()) if bill.get("bomFormat") == "CycloneDX" else ():
                if _normal(one["name"]) != _normal(package.metadata["Name"]):
                    yield {member: one[member] for member in _COPIED if member in one}
        except (ValueError, KeyError, TypeError, AttributeError) as fault:
            msg = f"{file.locate()}: this SBOM of a package cannot be read ({fault}); install that package again"
            raise Misconfigured(Reason.BAD_SETTINGS, msg, file=str(file.locate())) from fault


def _nest(made: _Json, parts: Iterable[_Json], depends: dict[str, set[str]]) -> None:
    """Put `parts` into the component that contains them, each with a reference of its own."""
    ref = str(made["bom-ref"])
    known = {f"{ref}#{part['name']}@{part.get('version', '')}": part for part in parts}
    if known:
        made["components"] = [{**known[one], "bom-ref": one} for one in sorted(known)]
    depends.setdefault(ref, set()).update(known)
    depends.update({one: set() for one in known})


def _named(kind: str, name: str, version: str) -> _Json:
    purl = f"pkg:generic/{name}@{quote(version, safe='')}"
    return {"type": kind, "bom-ref": purl, "name": name, "version": version, "purl": purl}


def _purl(package: Distribution) -> str:
    return f"pkg:pypi/{_normal(package.metadata['Name'])}@{quote(package.version, safe='')}"


def _normal(name: str) -> str:
    """The one spelling of a package's name in a purl and in indexes."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _first(package: Distribution, *fields: str) -> str:
    values = (str(value).strip() for name in fields for value in package.metadata.get_all(name) or ())
    return next((value for value in values if value not in {"", "UNKNOWN"}), "")


def _spell(seconds: int) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%SZ}"


def _encode(bill: _Json) -> bytes:
    return (json.dumps(bill, indent=1, sort_keys=True, ensure_ascii=False) + "\n").encode()
