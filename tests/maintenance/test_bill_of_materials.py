"""The bill of materials names what is installed, says the same each time, and trusts no lock that differs."""

from __future__ import annotations

import json
import re
import sqlite3
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.backends.openssl import backend

from tests.simulator.refusals import refuses
from tests.simulator.running import denied, done
from vagus.errors import Malformed, Misconfigured
from vagus.maintenance.bill_of_materials import Lock, decode_lock, make_bill
from vagus.reasons import Reason

ROOT = Path(__file__).parents[2]
LOCKS = (ROOT / "requirements" / "vagus.txt", ROOT / "requirements" / "optional.txt")
MEMBERS = {
    "type",
    "bom-ref",
    "name",
    "version",
    "purl",
    "description",
    "supplier",
    "licenses",
    "hashes",
    "externalReferences",
    "components",
}


def locks() -> list[Lock]:
    return [decode_lock(path.read_bytes()) for path in LOCKS]


@pytest.fixture(scope="module")
def bill() -> dict[str, Any]:
    made: dict[str, Any] = json.loads(make_bill(locks(), 1_800_000_000))
    return made


def component(bill: dict[str, Any], name: str) -> dict[str, Any]:
    (found,) = [one for one in bill["components"] if one["name"] == name]
    return dict(found)


def every_component(bill: dict[str, Any]) -> list[dict[str, Any]]:
    tops = [bill["metadata"]["component"], *bill["components"]]
    return [*tops, *(part for one in tops for part in one.get("components", ()))]


def test_it_names_everything_that_the_program_loads_in_its_installed_version(bill: dict[str, Any]) -> None:
    assert (bill["bomFormat"], bill["specVersion"], bill["version"]) == ("CycloneDX", "1.6", 1)
    program = bill["metadata"]["component"]
    assert (program["name"], program["version"]) == ("vagus", distribution("vagus").version)
    assert program["licenses"] == [{"expression": "Apache-2.0"}]
    found = {one["purl"]: one["version"] for one in bill["components"]}
    pinned = re.findall(r"^([A-Za-z0-9._-]+)==([^\s;\\]+)", LOCKS[0].read_text("utf-8"), re.MULTILINE)
    assert {f"pkg:pypi/{name}@{version}": version for name, version in pinned}.items() <= found.items()
    assert not {name for name in found if re.match(r"pkg:pypi/(?:pytest|ruff|mypy|hypothesis|setuptools|pip)@", name)}


def test_it_names_the_libraries_that_are_compiled_in(bill: dict[str, Any]) -> None:
    """A weakness in OpenSSL is looked for by OpenSSL's name, not by that of a Python package."""
    parts = {one["name"]: one for one in component(bill, "cryptography")["components"]}
    assert parts["openssl"]["version"] == backend.openssl_version_text().split()[1]
    assert parts["openssl"]["purl"].startswith("pkg:generic/openssl@")
    runtime = {one["name"]: one["version"] for one in component(bill, "cpython")["components"]}
    assert runtime["sqlite"] == sqlite3.sqlite_version


def test_each_component_has_a_reference_of_its_own_and_each_dependency_leads_to_one(bill: dict[str, Any]) -> None:
    refs = [one["bom-ref"] for one in every_component(bill)]
    assert len(refs) == len(set(refs))
    depends = {one["ref"]: one["dependsOn"] for one in bill["dependencies"]}
    assert set(depends) == set(refs)
    reached, waiting = set(), [bill["metadata"]["component"]["bom-ref"]]
    while waiting:
        reached.add(ref := waiting.pop())
        waiting += set(depends[ref]) - reached
    assert reached == set(refs), "what the program does not need is not in it"
    sqlalchemy = next(name for name in depends if name.startswith("pkg:pypi/sqlalchemy@"))
    assert [one.partition("@")[0] for one in depends[sqlalchemy]] == ["pkg:pypi/typing-extensions"]


def test_its_members_are_those_of_the_schema(bill: dict[str, Any]) -> None:
    """Those of CycloneDX 1.6 that are used; its schema allows no others."""
    assert re.fullmatch(
        r"urn:uuid:[0-9a-f]{8}-[0-9a-f]{4}-5[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}", bill["serialNumber"]
    )
    assert bill["metadata"]["timestamp"] == "2027-01-15T08:00:00Z"
    for one in every_component(bill):
        assert set(one) <= MEMBERS
        assert one["purl"].startswith("pkg:")
        for licence in one.get("licenses", ()):
            assert len(licence) == 1
            assert set(licence) <= {"expression", "license"}
        assert len(one.get("licenses", ())) == 1 or all("license" in licence for licence in one.get("licenses", ()))


def test_each_package_has_the_hashes_of_its_lock(bill: dict[str, Any]) -> None:
    for one in bill["components"]:
        if not one["purl"].startswith("pkg:pypi/"):
            continue
        (reference,) = one["externalReferences"]
        assert reference["type"] == "distribution"
        locked = re.search(
            rf"^{re.escape(one['purl'][9:].replace('@', '=='))} \\\n((?:    --hash=\S+(?: \\)?\n)+)",
            "".join(path.read_text("utf-8") for path in LOCKS),
            re.MULTILINE,
        )
        assert locked is not None
        hashes = re.findall(r"sha256:([0-9a-f]{64})", locked[1])
        assert [entry["content"] for entry in reference["hashes"]] == sorted(hashes)


def test_the_same_installation_gives_the_same_bytes_and_another_time_another_number() -> None:
    first, again, later, undated = (make_bill(locks(), at) for at in (1, 1, 2, None))
    assert first == again
    assert len({json.loads(one)["serialNumber"] for one in (first, later, undated)}) == 3
    assert "timestamp" not in json.loads(undated)["metadata"]
    assert not [one for one in json.loads(make_bill([], None))["components"] if "externalReferences" in one]


def test_a_package_in_another_version_than_locked_is_refused() -> None:
    lock = dict(locks()[1])
    lock["rich"] = ("1.0.0", lock["rich"][1])
    with refuses(Reason.BAD_ARGUMENT, Malformed, match=r"rich \S+ is installed, and the lock file locks version 1.0.0"):
        make_bill([lock], None)
    del lock["rich"]
    with refuses(Reason.BAD_ARGUMENT, Malformed, match="the lock file does not lock it"):
        make_bill([lock], None)


def test_a_package_that_is_missing_is_refused_and_one_for_another_system_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    facts = tmp_path / "vagus-9.9.dist-info" / "METADATA"
    facts.parent.mkdir()
    lines = ["Name: vagus", "Version: 9.9+local", "Author-email: One <one@test.example>, Two <two@test.example>"]
    lines += ["Requires-Dist: h11>=0.1", 'Requires-Dist: wheel ; sys_platform == "win32"']
    lines += ['Requires-Dist: ghost ; python_version < "3"', 'Requires-Dist: pytest ; extra == "test"']
    monkeypatch.syspath_prepend(str(tmp_path))
    facts.write_text("\n".join(["Metadata-Version: 2.1", *lines, ""]))
    made = json.loads(make_bill([], None))
    assert [one["name"] for one in made["components"]] == ["cpython", "h11"]
    program = made["metadata"]["component"]
    assert (program["purl"], program["supplier"]) == ("pkg:pypi/vagus@9.9%2Blocal", {"name": "One, Two"})
    facts.write_text("\n".join(["Metadata-Version: 2.1", *lines, "Requires-Dist: ghost>=1", ""]))
    with refuses(Reason.BAD_SETTINGS, Misconfigured, match="package ghost is not installed"):
        make_bill([], None)


@pytest.mark.parametrize(
    "content",
    [
        "{",
        "[]",
        '{"bomFormat": "CycloneDX", "components": [{"type": "library"}]}',
        '{"bomFormat": "CycloneDX", "components": 1}',
    ],
)
def test_a_package_whose_own_bill_cannot_be_read_is_refused_by_its_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str
) -> None:
    facts = tmp_path / "vagus-9.9.dist-info"
    (facts / "sboms").mkdir(parents=True)
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: vagus\nVersion: 9.9\n")
    (facts / "RECORD").write_text("vagus-9.9.dist-info/sboms/parts.json,,\n")
    bill = facts / "sboms" / "parts.json"
    bill.write_text(content)
    monkeypatch.syspath_prepend(str(tmp_path))
    with refuses(Reason.BAD_SETTINGS, Misconfigured, match=str(bill)):
        make_bill([], None)
    bill.write_text('{"spdxVersion": "SPDX-2.3", "packages": []}')
    assert "components" not in json.loads(make_bill([], None))["metadata"]["component"]


def test_the_command_writes_it_and_needs_no_installation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1800000000")
    named = [word for path in LOCKS for word in ("--lock", str(path))]
    done(tmp_path, "sbom", *named, "--out", str(tmp_path / "vagus.cdx.json"))
    assert (tmp_path / "vagus.cdx.json").read_bytes() == make_bill(locks(), 1_800_000_000)
    assert done(tmp_path, "sbom", *named).out.encode() == make_bill(locks(), 1_800_000_000)


@pytest.mark.parametrize(
    ("arguments", "reason", "says"),
    [
        (("--lock", "FOLDER/none.txt"), "BAD_ARGUMENT", "none.txt: there is no such lock file; name the one"),
        (("--lock", "FOLDER"), "BAD_ARGUMENT", "or leave --lock out"),
        (("--lock", str(ROOT / "README.md")), "BAD_ARGUMENT", "README.md: no line reads NAME==VERSION"),
        (("--lock", str(ROOT / "requirements" / "build.txt")), "BAD_ARGUMENT", "name the file it was installed from"),
        (("--out", "FOLDER"), "BAD_ARGUMENT", "is a folder"),
        (("--out", "FOLDER/none/bill.json"), "BAD_ARGUMENT", "does not exist"),
        (("--date", "yesterday"), "BAD_ARGUMENT", "'--date'"),
        (("--date", "-1"), "BAD_ARGUMENT", "'--date'"),
    ],
)
def test_wrong_use_is_refused_and_writes_nothing(
    tmp_path: Path, arguments: tuple[str, ...], reason: str, says: str
) -> None:
    words = [word.replace("FOLDER", str(tmp_path)) for word in arguments]
    denied(tmp_path, 2, reason, "sbom", *words, says=(says,))
    assert list(tmp_path.iterdir()) == []
