"""Every table on one page; queries live in the file of their noun.

Times are whole seconds since 1970 UTC. A certificate is named by (authority_id, serial) everywhere, and its row
is keyed by the index of its issuance entry in the ledger: the one order of the installation (see `writer`).
"""

from __future__ import annotations

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
ByteOrdered = String(80).with_variant(String(80, collation="C"), "postgresql")
"""Text that is compared in ranges: by its bytes, not by the rules of the database's language."""


def _index_where(condition: str, name: str, *columns: str) -> Index:
    """An index of only those rows for which `condition` holds."""
    return Index(name, *columns, sqlite_where=text(condition), postgresql_where=text(condition))


installation = Table(  # one row: what this database is
    "installation",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("origin", String(200), nullable=False),  # the ledger's origin line
    Column("created_at", Seconds, nullable=False),
    Column("salt", LargeBinary, nullable=False),  # for hashes of personal data in the ledger
    Column("restored_at", Seconds),  # set by restore: nothing is issued and nothing appended until settled
    Column("restored_size", Number),  # how many leaves the backup had; kept while unsettled
    Column("restored_from", LargeBinary),  # the SHA-256 of the backup; kept while unsettled
    Column("policy_sha256", LargeBinary),
    Column("group_domain", String(100)),
)

log_head = Table(  # one row, locked by each batch: numbers leaves and revocations without a gap
    "log_head",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("size", Number, nullable=False),
    Column("frontier", LargeBinary, nullable=False),  # concatenated 32-byte hashes, largest subtree first
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
    Column("name", String(80), nullable=False),  # root, h1, h1/icu, h1/@sdc, h1/@infra, line
    Column("generation", Integer, nullable=False),  # 1, 2 ... re-key
    Column("kind", String(24), nullable=False),  # root, device_ca, issuing_ca, sdc_ca, infrastructure_ca, line_ca
    Column("parent_id", Integer, ForeignKey("authorities.id")),  # None for a root and for one signed elsewhere
    Column("is_offline", Boolean, nullable=False),
    Column("state", String(16), nullable=False),  # requested, active, retired, revoked
    Column("key_id", String(80), nullable=False),
    Column("keystore", String(80), nullable=False),
    Column("spki_sha256", LargeBinary, nullable=False),
    Column("request_der", LargeBinary),  # the CSR that waits for a ceremony or for a CA elsewhere
    Column("certificate_der", LargeBinary),
    Column("not_before", Seconds),
    Column("not_after", Seconds),
    Column("constrain_dn", Boolean, nullable=False, default=False),
    UniqueConstraint("name", "generation"),
)

authority_chain = Table(  # certificates above an imported authority, and other generations' cross-signatures
    "authority_chain",
    metadata,
    Column("authority_id", Integer, ForeignKey("authorities.id"), primary_key=True),
    Column("position", Integer, primary_key=True),
    Column("certificate_der", LargeBinary, nullable=False),
)

units = Table(
    "units",
    metadata,
    Column("name", String(80), primary_key=True),  # h1/icu
    Column("hospital", String(20), nullable=False),
    Column("organisation", Text, nullable=False),  # O of the subject
    Column("title", Text, nullable=False),  # OU of the subject
)

models = Table(
    "models",
    metadata,
    Column("name", String(80), primary_key=True),
    Column("maker", String(80), nullable=False),
    Column("category", String(40), nullable=False),  # infusion-pump, pacemaker ...
    Column("profile", String(40), nullable=False),
    Column("anchor_sha256", LargeBinary),  # the maker's anchor that may vouch for this model
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
    Column("maker_serial", ByteOrdered, nullable=False),
    Column("udi", String(120)),
    Column("place", String(120)),
    Column("state", String(20), nullable=False),
    Column("host_names", Text),  # JSON list: what a gateway or station may show as a server
    Column("added_at", Seconds, nullable=False),
    Column("changed_at", Seconds, nullable=False),
    Column("transferred_at", Seconds),  # to the present unit; NULL: it was never in another
    UniqueConstraint("maker_serial", "model"),  # in this order: a model alone has an index, and may be all there is
    Index("devices_by_unit", "unit", "id"),
    Index("devices_by_state", "state", "id"),
    Index("devices_by_model", "model", "id"),
    Index("devices_by_profile", "profile", "id"),
    Index("devices_by_unit_and_state", "unit", "state", "id"),
    Index("devices_by_model_and_state", "model", "state", "id"),
    _index_where("host_names IS NOT NULL", "devices_with_host_names", "id"),
)

keys = Table(  # a key belongs to one owner for ever (see `keys`)
    "keys",
    metadata,
    Column("spki_sha256", LargeBinary, primary_key=True),
    Column("owner", String(100), nullable=False),  # device:<id>, authority:<name>#<generation>, ocsp:..., maker:...
    Column("state", String(12), nullable=False),  # active, blocked
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
    Column("state", String(10), nullable=False),  # intended, issued, revoked, held
    Column("fingerprint", LargeBinary),  # SHA-256 of the DER, once signed
    UniqueConstraint("serial", "authority_id"),  # in this order: an authority alone has an index
    UniqueConstraint("request_id"),
    Index("certificates_by_authority", "authority_id", "leaf_index"),
    Index("certificates_by_device", "device_id", "not_after"),
    Index("certificates_by_expiry", "not_after"),
    Index("certificates_by_fingerprint", "fingerprint"),
    Index("certificates_by_key", "spki_sha256"),
    Index("certificates_by_state", "state", "leaf_index"),
    _index_where("profile = 'idevid'", "certificates_by_birth", "owner"),
)

certificate_bytes = Table(  # wide bytes apart from the narrow table that everything scans
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
    Column("sequence", Number, nullable=False, unique=True),  # gapless; what every gateway follows
    Column("authority_id", Integer, nullable=False),
    Column("serial", LargeBinary, nullable=False),
    Column("shard", Integer, nullable=False),
    Column("reason", Integer, nullable=False),  # RFC 5280 5.3.1 code
    Column("revoked_at", Seconds, nullable=False),
    Column("not_after", Number, nullable=False),
    Column("entry_der", LargeBinary, nullable=False),  # the revokedCertificates element, encoded once
    Index("revocations_by_shard", "authority_id", "shard", "leaf_index"),
    Index("revocations_by_step", "authority_id", "shard", "sequence"),
)

revocation_events = Table(  # the gapless sequence itself: holds and releases also move it
    "revocation_events",
    metadata,
    Column("sequence", Number, primary_key=True, autoincrement=False),
    Column("authority_id", Integer, nullable=False),
    Column("serial", LargeBinary, nullable=False),
    Column("act", String(8), nullable=False),  # revoke, hold, release
    Column("reason", Integer, nullable=False),
    Column("at", Seconds, nullable=False),
    Index("revocation_events_by_act", "act", "at"),
)

device_changes = Table(  # the gapless sequence of what takes or gives devices their rights; gateways follow it too
    "device_changes",
    metadata,
    Column("sequence", Number, primary_key=True, autoincrement=False),
    Column("device_id", String(26), nullable=False),
    Column("at", Seconds, nullable=False),
)

crl_publications = Table(  # numbers never go back, also after a restore
    "crl_publications",
    metadata,
    Column("authority_id", Integer, ForeignKey("authorities.id"), primary_key=True),
    Column("shard", Integer, primary_key=True),  # -1: the complete list without IDP
    Column("number", BigInteger, nullable=False),
    Column("this_update", Seconds, nullable=False),
    Column("next_update", Seconds, nullable=False),
    Column("sequence", Number, nullable=False),  # the revocation sequence it covers
    Column("crl_der", LargeBinary, nullable=False),
)

crl_deltas = Table(  # RFC 5280 5.2.4: what changed since the base that the delta names
    "crl_deltas",
    metadata,
    Column("authority_id", Integer, ForeignKey("authorities.id"), primary_key=True),
    Column("shard", Integer, primary_key=True),
    Column("base_number", BigInteger, nullable=False),
    Column("base_sequence", Number, nullable=False),  # the revocation sequence that the base covers
    Column("this_update", Seconds, nullable=False),
    Column("number", BigInteger, nullable=False),
    Column("next_update", Seconds, nullable=False),
    Column("crl_der", LargeBinary),  # None until the first change after the base
)

_STORED_AS_IT_IS = DDL(  # type: ignore[no-untyped-call]  # to compress a CRL takes long, and the writer would wait
    "ALTER TABLE %(table)s ALTER COLUMN crl_der SET STORAGE EXTERNAL"
).execute_if(dialect="postgresql")
for _lists in (crl_publications, crl_deltas):
    event.listen(_lists, "after_create", _STORED_AS_IT_IS)

crl_shards = Table(  # places given out in each shard, in blocks: a certificate's shard never changes
    "crl_shards",
    metadata,
    Column("authority_id", Integer, ForeignKey("authorities.id"), primary_key=True),
    Column("shard", Integer, primary_key=True),
    Column("places_taken", Integer, nullable=False),
)

leases = Table(  # who may do what only one process does at a time
    "leases",
    metadata,
    Column("name", String(80), primary_key=True),
    Column("holder", String(80), nullable=False),
    Column("until", Seconds, nullable=False),
)

revocation_plans = Table(  # mass revocations: counted, approved, run in stages, paused, resumed
    "revocation_plans",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("selection", Text, nullable=False),  # JSON: which certificates
    Column("act", String(8), nullable=False),  # revoke, hold, release
    Column("reason", Integer, nullable=False),
    Column("locks_out", Boolean, nullable=False, default=False),  # devices enrol no more until an operator says so
    Column("counts", Text, nullable=False),  # JSON: what was shown before approval
    Column("stages", Text, nullable=False),  # JSON: how many certificates in all after each stage
    Column("approvals_needed", Integer, nullable=False),
    Column("approvals", Text, nullable=False),  # JSON list of operators
    Column("state", String(10), nullable=False),  # proposed, running, paused, done, stopped
    Column("made_by", String(100), nullable=False),
    Column("made_at", Seconds, nullable=False),
    Column("newest_leaf", Number, nullable=False),  # certificates of later leaves are not touched
    Column("newest_step", Number, nullable=False),  # holds of later steps are not released
    Column("position", Number, nullable=False),  # the last leaf done, -1 before the first
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

tokens = Table(  # one-time enrolment tokens; only their hash is kept
    "tokens",
    metadata,
    Column("token_sha256", LargeBinary, primary_key=True),
    Column("device_id", String(26), ForeignKey("devices.id"), nullable=False),
    Column("made_at", Seconds, nullable=False),
    Column("expires_at", Seconds, nullable=False),
    Column("bound_spki_sha256", LargeBinary),  # set at first use
    Column("used_at", Seconds),
    Column("certificate_leaf_index", Number),
    Index("tokens_by_device", "device_id"),
)

verifier_memory = Table(  # what a verifier must remember across restarts: CRL numbers, clock floor
    "verifier_memory",
    metadata,
    Column("name", String(120), primary_key=True),
    Column("number", BigInteger, nullable=False),  # clipped to 63 bits, for people
    Column("octets", LargeBinary, nullable=False),  # the number itself, 20 bytes, big-endian
    Column("at", Seconds, nullable=False),
)

work = Table(  # durable jobs: inserted by business code in its own transaction, run by server/jobs under a lease
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
