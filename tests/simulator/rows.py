"""Rows of authorities and certificates for the tests of the signing side's records."""

from __future__ import annotations

from typing import Any

from vagus.records.authorities import AuthorityRow, certify_authority, insert_authority
from vagus.records.certificates import CertificateRow, insert_intent
from vagus.records.engine.database import Connection


def authority(connection: Connection, name: str = "h1/icu", *, generation: int = 1, **changes: Any) -> int:
    """A certified authority of that name; `certified=False` leaves it requested."""
    is_certified = changes.pop("certified", True)
    fields: dict[str, Any] = {
        "kind": "issuing_ca",
        "parent_id": None,
        "is_offline": False,
        "key_id": f"ca-{generation}",
        "keystore": name.replace("/", "."),
        "spki_sha256": f"{name}#{generation}".encode().ljust(32, b"\0"),
        "request_der": b"request",
        **changes,
    }
    made = insert_authority(connection, AuthorityRow(name=name, generation=generation, **fields))
    if is_certified:
        parent = fields["parent_id"]
        certify_authority(
            connection, made, f"certificate {name}".encode(), not_before=10, not_after=10_000, parent_id=parent
        )
    return made


def certificate(connection: Connection, authority_id: int, leaf_index: int, **changes: Any) -> CertificateRow:
    """An intent of that leaf index, with the bytes `tbs_der`."""
    tbs_der = changes.pop("tbs_der", b"tbs %d" % leaf_index)
    fields: dict[str, Any] = {
        "leaf_index": leaf_index,
        "authority_id": authority_id,
        "serial": 0x40 << 152 | leaf_index,
        "owner": "device:a",
        "device_id": "a",
        "profile": "bedside",
        "spki_sha256": leaf_index.to_bytes(32, "big"),
        "request_id": f"r{leaf_index}",
        "not_before": 100,
        "not_after": 1_000 + leaf_index,
        "shard": 0,
        **changes,
    }
    row = CertificateRow(**fields)
    insert_intent(connection, row, tbs_der)
    return row
