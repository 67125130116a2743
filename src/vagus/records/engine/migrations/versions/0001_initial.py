"""The first schema, frozen once released: a later change is a later migration, never an edit here."""

from __future__ import annotations

import hashlib

from alembic import op
from sqlalchemy import (
    DDL,
    BigInteger,
    Boolean,
    Column,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    event,
    text,
)

metadata = MetaData()

Seconds = BigInteger
Number = BigInteger().with_variant(Integer, "sqlite")
InOctets = String(80).with_variant(String(80, collation="C"), "postgresql")


def _index_where(condition: str, name: str, *columns: str) -> Index:
    """An index of only those rows for which `condition` holds."""
    return Index(name, *columns, sqlite_where=text(condition), postgresql_where=text(condition))


installation = Table(
    "installation",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("origin", String(200), nullable=False),
    Column("created_at", Seconds, nullable=False),
    Column("salt", LargeBinary, nullable=False),
    Column("restored_at", Seconds),
    Column("restored_size", Number),
    Column("restored_from", LargeBinary),
    Column("policy_sha256", LargeBinary),
    Column("group_domain", String(100)),
)

log_head = Table(
    "log_head",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("size", Number, nullable=False),
    Column("frontier", LargeBinary, nullable=False),
    Column("root", LargeBinary, nullable=False),
    Column("revocation_sequence", Number, nullable=False),
    Column("device_sequence", Number, nullable=False),
)

log_leaves = Table(
    "log_leaves",
    metadata,
    Column("leaf_index", Number, primary_key=True, autoincrement=False),
    Column("entry", LargeBinary, nullable=False),
    Column("leaf_hash", LargeBinary, nullable=False),
)

authorities = Table(
    "authorities",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("name", String(80), nullable=False),
    Column("generation", Integer, nullable=False),
    Column("kind", String(24), nullable=False),
    Column("parent_id", Integer, ForeignKey("authorities.id")),
    Column("is_offline", Boolean, nullable=False),
    Column("state", String(16), nullable=False),
    Column("key_id", String(80), nullable=False),
    Column("keystore", String(80), nullable=False),
    Column("spki_sha256", LargeBinary, nullable=False),
    Column("request_der", LargeBinary),
    Column("certificate_der", LargeBinary),
    Column("not_before", Seconds),
    Column("not_after", Seconds),
    Column("constrain_dn", Boolean, nullable=False, default=False),
    UniqueConstraint("name", "generation"),
)

authority_chain = Table(
    "authority_chain",
    metadata,
    Column("authority_id", Integer, ForeignKey("authorities.id"), primary_key=True),
    Column("position", Integer, primary_key=True),
    Column("certificate_der", LargeBinary, nullable=False),
)

units = Table(
    "units",
    metadata,
    Column("name", String(80), primary_key=True),
    Column("hospital", String(20), nullable=False),
    Column("organisation", Text, nullable=False),
    Column("title", Text, nullable=False),
)

models = Table(
    "models",
    metadata,
    Column("name", String(80), primary_key=True),
    Column("maker", String(80), nullable=False),
    Column("category", String(40), nullable=False),
    Column("profile", String(40), nullable=False),
    Column("anchor_sha256", LargeBinary),
)

maker_anchors = Table(
    "maker_anchors",
    metadata,
    Column("sha256", LargeBinary, primary_key=True),
    Column("maker", String(80), nullable=False),
    Column("certificate_der", LargeBinary, nullable=False),
    Column("added_at", Seconds, nullable=False),
)

devices = Table(
    "devices",
    metadata,
    Column("id", String(26), primary_key=True),
    Column("unit", String(80), ForeignKey("units.name"), nullable=False),
    Column("model", String(80), ForeignKey("models.name"), nullable=False),
    Column("profile", String(40), nullable=False),
    Column("maker_serial", InOctets, nullable=False),
    Column("udi", String(120)),
    Column("place", String(120)),
    Column("state", String(20), nullable=False),
    Column("host_names", Text),
    Column("added_at", Seconds, nullable=False),
    Column("changed_at", Seconds, nullable=False),
    Column("transferred_at", Seconds),
    UniqueConstraint("maker_serial", "model"),
    Index("devices_by_unit", "unit", "id"),
    Index("devices_by_state", "state", "id"),
    Index("devices_by_model", "model", "id"),
    Index("devices_by_profile", "profile", "id"),
    Index("devices_by_unit_and_state", "unit", "state", "id"),
    Index("devices_by_model_and_state", "model", "state", "id"),
    _index_where("host_names IS NOT NULL", "devices_with_host_names", "id"),
)

keys = Table(
    "keys",
    metadata,
    Column("spki_sha256", LargeBinary, primary_key=True),
    Column("owner", String(100), nullable=False),
    Column("state", String(12), nullable=False),
    Column("since", Seconds, nullable=False),
)

certificates = Table(
    "certificates",
    metadata,
    Column("leaf_index", Number, primary_key=True, autoincrement=False),
    Column("authority_id", Integer, ForeignKey("authorities.id"), nullable=False),
    Column("serial", LargeBinary, nullable=False),
    Column("owner", String(100), nullable=False),
    Column("device_id", String(26)),
    Column("profile", String(40), nullable=False),
    Column("spki_sha256", LargeBinary, nullable=False),
    Column("request_id", String(100), nullable=False),
    Column("not_before", Seconds, nullable=False),
    Column("not_after", Number, nullable=False),
    Column("shard", Integer, nullable=False),
    Column("state", String(10), nullable=False),
    Column("fingerprint", LargeBinary),
    UniqueConstraint("serial", "authority_id"),
    UniqueConstraint("request_id"),
    Index("certificates_by_authority", "authority_id", "leaf_index"),
    Index("certificates_by_device", "device_id", "not_after"),
    Index("certificates_by_expiry", "not_after"),
    Index("certificates_by_fingerprint", "fingerprint"),
    Index("certificates_by_key", "spki_sha256"),
    Index("certificates_by_state", "state", "leaf_index"),
    _index_where("profile = 'idevid'", "certificates_by_birth", "owner"),
)

certificate_bytes = Table(
    "certificate_bytes",
    metadata,
    Column("leaf_index", Number, ForeignKey("certificates.leaf_index"), primary_key=True, autoincrement=False),
    Column("tbs_der", LargeBinary, nullable=False),
    Column("certificate_der", LargeBinary),
)

revocations = Table(
    "revocations",
    metadata,
    Column("leaf_index", Number, ForeignKey("certificates.leaf_index"), primary_key=True, autoincrement=False),
    Column("sequence", Number, nullable=False, unique=True),
    Column("authority_id", Integer, nullable=False),
    Column("serial", LargeBinary, nullable=False),
    Column("shard", Integer, nullable=False),
    Column("reason", Integer, nullable=False),
    Column("revoked_at", Seconds, nullable=False),
    Column("not_after", Number, nullable=False),
    Column("entry_der", LargeBinary, nullable=False),
    Index("revocations_by_shard", "authority_id", "shard", "leaf_index"),
    Index("revocations_by_step", "authority_id", "shard", "sequence"),
)

revocation_events = Table(
    "revocation_events",
    metadata,
    Column("sequence", Number, primary_key=True, autoincrement=False),
    Column("authority_id", Integer, nullable=False),
    Column("serial", LargeBinary, nullable=False),
    Column("act", String(8), nullable=False),
    Column("reason", Integer, nullable=False),
    Column("at", Seconds, nullable=False),
    Index("revocation_events_by_act", "act", "at"),
)

device_changes = Table(
    "device_changes",
    metadata,
    Column("sequence", Number, primary_key=True, autoincrement=False),
    Column("device_id", String(26), nullable=False),
    Column("at", Seconds, nullable=False),
)

crl_publications = Table(
    "crl_publications",
    metadata,
    Column("authority_id", Integer, ForeignKey("authorities.id"), primary_key=True),
    Column("shard", Integer, primary_key=True),
    Column("number", BigInteger, nullable=False),
    Column("this_update", Seconds, nullable=False),
    Column("next_update", Seconds, nullable=False),
    Column("sequence", Number, nullable=False),
    Column("crl_der", LargeBinary, nullable=False),
)

crl_deltas = Table(
    "crl_deltas",
    metadata,
    Column("authority_id", Integer, ForeignKey("authorities.id"), primary_key=True),
    Column("shard", Integer, primary_key=True),
    Column("base_number", BigInteger, nullable=False),
    Column("base_sequence", Number, nullable=False),
    Column("this_update", Seconds, nullable=False),
    Column("number", BigInteger, nullable=False),
    Column("next_update", Seconds, nullable=False),
    Column("crl_der", LargeBinary),
)

_STORED_AS_IT_IS = DDL(  # type: ignore[no-untyped-call]  # a list is compressed for long, in the one writer's turn
    "ALTER TABLE %(table)s ALTER COLUMN crl_der SET STORAGE EXTERNAL"
).execute_if(dialect="postgresql")
for _lists in (crl_publications, crl_deltas):
    event.listen(_lists, "after_create", _STORED_AS_IT_IS)

crl_shards = Table(
    "crl_shards",
    metadata,
    Column("authority_id", Integer, ForeignKey("authorities.id"), primary_key=True),
    Column("shard", Integer, primary_key=True),
    Column("places_taken", Integer, nullable=False),
)

leases = Table(
    "leases",
    metadata,
    Column("name", String(80), primary_key=True),
    Column("holder", String(80), nullable=False),
    Column("until", Seconds, nullable=False),
)

revocation_plans = Table(
    "revocation_plans",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("selection", Text, nullable=False),
    Column("act", String(8), nullable=False),
    Column("reason", Integer, nullable=False),
    Column("locks_out", Boolean, nullable=False),
    Column("counts", Text, nullable=False),
    Column("stages", Text, nullable=False),
    Column("approvals_needed", Integer, nullable=False),
    Column("approvals", Text, nullable=False),
    Column("state", String(10), nullable=False),
    Column("made_by", String(100), nullable=False),
    Column("made_at", Seconds, nullable=False),
    Column("newest_leaf", Number, nullable=False),
    Column("newest_step", Number, nullable=False),
    Column("position", Number, nullable=False),
    Column("done", Integer, nullable=False),
    Column("stage", Integer, nullable=False),
    Column("stopped_because", Text),
)

ocsp_responders = Table(
    "ocsp_responders",
    metadata,
    Column("authority_id", Integer, ForeignKey("authorities.id"), primary_key=True),
    Column("key_id", String(80), nullable=False),
    Column("keystore", String(80), nullable=False),
    Column("certificate_der", LargeBinary, nullable=False),
    Column("not_after", Seconds, nullable=False),
)

tokens = Table(
    "tokens",
    metadata,
    Column("token_sha256", LargeBinary, primary_key=True),
    Column("device_id", String(26), ForeignKey("devices.id"), nullable=False),
    Column("made_at", Seconds, nullable=False),
    Column("expires_at", Seconds, nullable=False),
    Column("bound_spki_sha256", LargeBinary),
    Column("used_at", Seconds),
    Column("certificate_leaf_index", Number),
    Index("tokens_by_device", "device_id"),
)

verifier_memory = Table(
    "verifier_memory",
    metadata,
    Column("name", String(120), primary_key=True),
    Column("number", BigInteger, nullable=False),
    Column("octets", LargeBinary, nullable=False),
    Column("at", Seconds, nullable=False),
)

work = Table(
    "work",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("kind", String(40), nullable=False),
    Column("key", String(120), nullable=False),
    Column("payload", Text, nullable=False),
    Column("run_after", Seconds, nullable=False),
    Column("attempts", Integer, nullable=False, default=0),
    Column("leased_by", String(60)),
    Column("leased_until", Seconds),
    Column("done_at", Seconds),
    Column("last_error", Text),
    Index("work_due", "done_at", "run_after", "id"),
    Index("work_by_key", "key", "kind"),
)

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make every table, and the head of the log without leaves."""
    connection = op.get_bind()
    metadata.create_all(connection)
    root = hashlib.sha256(b"").digest()
    head = {"id": 1, "size": 0, "frontier": b"", "root": root}
    connection.execute(log_head.insert().values(**head, revocation_sequence=0, device_sequence=0))
