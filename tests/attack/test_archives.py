"""Backups that somebody bent on their way back: nothing of them appears anywhere."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.simulator.attacked import Hospital
from vagus.errors import VagusError
from vagus.maintenance.backups import restore, take_backup
from vagus.operations.local_account import local_actor

Member = tuple[tarfile.TarInfo, bytes]


def _rename(name: str) -> Callable[[Member, dict[str, Any]], Member]:
    def bend(member: Member, said: dict[str, Any]) -> Member:
        member[0].name = said["name"] = name
        return member

    return bend


def _link(member: Member, said: dict[str, Any]) -> Member:
    member[0].type, member[0].linkname, member[0].size = tarfile.SYMTYPE, "/etc/passwd", 0
    said["size"] = 0
    return member


def _sparse(member: Member, said: dict[str, Any]) -> Member:
    """A GNU sparse file: no octet of it stands in the archive, and it says that it is a tebibyte."""
    member[0].type = tarfile.GNUTYPE_SPARSE
    return member


def _pax_sparse(member: Member, said: dict[str, Any]) -> Member:
    member[0].pax_headers = {"GNU.sparse.major": "0", "GNU.sparse.size": str(1 << 40), "GNU.sparse.map": "0,0"}
    said["size"] = 1 << 40
    return member


def _contiguous(member: Member, said: dict[str, Any]) -> Member:
    member[0].type = tarfile.CONTTYPE
    return member


def _database(place: bytes) -> Callable[[Member, dict[str, Any]], Member]:
    def bend(member: Member, said: dict[str, Any]) -> Member:
        content = member[1].replace(b"sqlite:///vagus.sqlite3", place)
        member[0].size = said["size"] = len(content)
        said["sha256"] = hashlib.sha256(content).hexdigest()
        return member[0], content

    return bend


@pytest.mark.parametrize(
    ("which", "bend"),
    [
        pytest.param("plan.toml", _rename("../evil"), id="dots"),
        pytest.param("plan.toml", _rename("/evil"), id="absolute"),
        pytest.param("plan.toml", _rename("keystores/../../evil"), id="inner dots"),
        pytest.param("plan.toml", _rename("vagus.toml/evil"), id="file as folder"),
        pytest.param("plan.toml", _link, id="link"),
        pytest.param("plan.toml", _sparse, id="sparse"),
        pytest.param("plan.toml", _pax_sparse, id="pax sparse"),
        pytest.param("plan.toml", _contiguous, id="contiguous"),
        pytest.param("vagus.toml", _database(b"sqlite:///../evil.sqlite3"), id="database above"),
        pytest.param("vagus.toml", _database(b"sqlite:////tmp/vagus-evil.sqlite3"), id="database elsewhere"),
    ],
)
def test_a_bent_backup_restores_nothing(
    hospital: Hospital, tmp_path: Path, which: str, bend: Callable[[Member, dict[str, Any]], Member]
) -> None:
    take_backup(hospital.installation, hospital.installation.actor, tmp_path / "good.tar")
    with tarfile.open(tmp_path / "good.tar") as good:
        members = [(one, (good.extractfile(one) or io.BytesIO()).read()) for one in good.getmembers()]
    manifest = json.loads(members[0][1])
    said = {one["name"]: one for one in manifest["files"]}
    rest = [bend(one, said[which]) if one[0].name == which else one for one in members[2:]]
    raw = json.dumps(manifest).encode()
    head = [(tarfile.TarInfo("manifest.json"), raw)]
    head.append((tarfile.TarInfo("manifest.sha256"), hashlib.sha256(raw).hexdigest().encode()))
    for info, content in head:
        info.size = len(content)
    with tarfile.open(tmp_path / "bent.tar", "w") as bent:
        for info, content in [*head, *rest]:
            bent.addfile(info, io.BytesIO(content) if info.isreg() else None)
    with pytest.raises(VagusError):
        restore(local_actor(), tmp_path / "bent.tar", tmp_path / "back")
    assert {path.name for path in tmp_path.iterdir()} == {"good.tar", "bent.tar"}
