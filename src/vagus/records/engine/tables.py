"""Every table on one page; queries live in the file of their noun.

Times are whole seconds since 1970 UTC. A certificate is named by (authority_id, serial) everywhere, and its row
is keyed by the index of its issuance entry in the ledger: the one order of the installation (see `writer`).
"""

from __future__ import annotations

from typing import Any

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


def _table(name: str, *parts: Column[Any] | UniqueConstraint | Index) -> Table:
    return Table(name, metadata, *parts)


def _index_where(condition: str, name: str, *columns: str) -> Index:
    """An index of only those rows for which `condition` holds."""
    return Index(name, *columns, sqlite_where=text(condition), postgresql_where=text(condition))


_NARROWING = ("authority_id", "profile", "key_algorithm", "unit", "category")


def _index_by_end(name: str, column: str) -> Index:
    """An index of the certificates with a value, in the order of their ends, in which a search judges them.

    It holds all other columns by which a search narrows, but for the state: that changes with each issuance, and would
    be written again in every index.
    """
    held = (one for one in _NARROWING if one != column)
    return Index(name, column, "not_after", "leaf_index", "not_before", *held)


installation = _table(  # one row, which says what this database is
    "installation",
    Column("id", Integer, primary_key=True),
    Column("origin", String(200), nullable=False),  # the origin line of the ledger's checkpoints
    Column("created_at", Seconds, nullable=False),
    Column("salt", LargeBinary, nullable=False),  # the salt for hashes of personal data in the ledger
    Column("restored_at", Seconds),  # set by a restore: until the gap is closed, the writer appends no entry
    Column("restored_size", Number),  # how many leaves the backup had; NULL unless a restore is unsettled
    Column("restored_from", LargeBinary),  # SHA-256 of the backup; NULL unless a restore is unsettled
    Column("policy_sha256", LargeBinary),
    Column("group_domain", String(100)),
)

log_head = _table(  # one row, which each batch locks: leaf indexes and revocation steps get their numbers without a gap
    "log_head",
    Column("id", Integer, primary_key=True),
    Column("size", Number, nullable=False),
    # the Merkle tree's frontier: concatenated 32-byte hashes, the largest subtree first
    Column("frontier", LargeBinary, nullable=False),
    Column("root", LargeBinary, nullable=False),
    Column("revocation_sequence", Number, nullable=False),
    Column("device_sequence", Number, nullable=False),
)

log_leaves = _table(
    "log_leaves",
    Column("leaf_index", Number, primary_key=True, autoincrement=False),
    Column("entry", LargeBinary, nullable=False),
    Column("leaf_hash", LargeBinary, nullable=False),
)

authorities = _table(
    "authorities",
    Column("id", Integer, primary_key=True),
    Column("name", String(80), nullable=False),  # an authority's name: root, h1, h1/icu, h1/@sdc, h1/@infra, line
    Column("generation", Integer, nullable=False),  # 1, 2 ...: each re-key makes a new generation
    Column("kind", String(24), nullable=False),  # kind: root, device_ca, issuing_ca, sdc_ca, infrastructure_ca, line_ca
    # the issuing authority; NULL for a root and for one that a foreign CA signed
    Column("parent_id", Integer, ForeignKey("authorities.id")),
    Column("is_offline", Boolean, nullable=False),
    Column("state", String(16), nullable=False),  # state of an authority: requested, active, retired, revoked
    Column("key_id", String(80), nullable=False),
    Column("keystore", String(80), nullable=False),
    Column("spki_sha256", LargeBinary, nullable=False),
    Column("request_der", LargeBinary),  # the certificate request that waits for a ceremony or a foreign CA
    Column("certificate_der", LargeBinary),
    Column("not_before", Seconds),
    Column("not_after", Seconds),
    Column("constrain_dn", Boolean, nullable=False, default=False),
    UniqueConstraint("name", "generation"),
)

authority_chain = _table(  # certificates above an imported authority, and cross-signatures of other generations
    "authority_chain",
    Column("authority_id", Integer, ForeignKey("authorities.id"), primary_key=True),
    Column("position", Integer, primary_key=True),
    Column("certificate_der", LargeBinary, nullable=False),
)

units = _table(
    "units",
    Column("name", String(80), primary_key=True),  # a unit's name, as in h1/icu
    Column("hospital", String(20), nullable=False),
    Column("organisation", Text, nullable=False),  # organisation (O) in the subject of the unit's certificates
    Column("title", Text, nullable=False),  # organizational unit (OU) in the subject of the unit's certificates
)

models = _table(
    "models",
    Column("name", String(80), primary_key=True),
    Column("maker", String(80), nullable=False),
    # a device category of the policy pack: infusion-pump, pacemaker ...
    Column("category", String(40), nullable=False),
    Column("profile", String(40), nullable=False),
    Column("anchor_sha256", LargeBinary),  # SHA-256 of the maker's anchor that may vouch for devices of this model
)

maker_anchors = _table(
    "maker_anchors",
    Column("sha256", LargeBinary, primary_key=True),
    Column("maker", String(80), nullable=False),
    Column("certificate_der", LargeBinary, nullable=False),
    Column("added_at", Seconds, nullable=False),
)

devices = _table(
    "devices",
    Column("id", String(26), primary_key=True),
    Column("unit", String(80), ForeignKey("units.name"), nullable=False),
    Column("model", String(80), ForeignKey("models.name"), nullable=False),
    Column("profile", String(40), nullable=False),
    Column("maker_serial", ByteOrdered, nullable=False),
    Column("udi", String(120)),
    Column("place", String(120)),
    Column("state", String(20), nullable=False),
    Column("host_names", Text),  # JSON list of host names that a gateway or station may show as a server
    Column("added_at", Seconds, nullable=False),
    Column("changed_at", Seconds, nullable=False),
    Column("transferred_at", Seconds),  # when the device moved to its present unit; NULL: it was never in another
    Column("held_at", Seconds),  # since when the device is on hold, so that it gets no certificate; NULL: it is not
    Column("origin", String(10)),  # what added the device: plan, manifest or single; NULL: a release before 0.2
    # The serial comes first, because the model has an index of its own and may be the only condition of a query.
    UniqueConstraint("maker_serial", "model"),
    # for pages in the order that people read: unit, model, serial
    Index("devices_in_order", "unit", "model", "maker_serial"),
    Index("devices_by_state", "state", "unit", "model", "maker_serial"),
    Index("devices_by_model", "model", "unit", "maker_serial"),
    Index("devices_by_profile", "profile", "unit", "model", "maker_serial"),
    Index("devices_by_model_and_state", "model", "state", "unit", "maker_serial"),
    _index_where("host_names IS NOT NULL", "devices_with_host_names", "id"),
)

# Lots that are recalled or on hold: a device of such a lot that is added later is so too.
lot_locks = _table(
    "lot_locks",
    Column("id", Integer, primary_key=True),
    Column("model", String(80), ForeignKey("models.name"), nullable=False),
    Column("first_serial", ByteOrdered),  # the range of the makers' serials; NULL: all of the model
    Column("last_serial", ByteOrdered),
    Column("units", Text, nullable=False),  # JSON list of the units that were named; empty: all
    Column("is_hold", Boolean, nullable=False),  # whether the lot is on hold, otherwise it is recalled
    Column("made_by", String(100), nullable=False),
    Column("made_at", Seconds, nullable=False),
    Column("ended_at", Seconds),  # NULL: in force
)

# When devices were last admitted and last refused by a listener. No entry of the ledger names a contact: the gateways'
# log has each of them, and the ledger commits to that log by its minutes (gate-minute).
device_contacts = _table(
    "device_contacts",
    Column("device_id", String(26), primary_key=True),
    Column("seen_at", Seconds),  # NULL: never admitted
    Column("seen_listener", String(80)),
    Column("refused_at", Seconds),  # NULL: never refused
    Column("refused_listener", String(80)),
    Column("refusal_reason", String(40)),  # reason code
)

keys = _table(  # each public key belongs to one owner for ever; `records.keys` enforces it
    "keys",
    Column("spki_sha256", LargeBinary, primary_key=True),
    # owner of a key: device:<id>, authority:<name>#<generation>, ocsp:..., maker:...
    Column("owner", String(100), nullable=False),
    Column("state", String(12), nullable=False),  # state of a key: active, blocked
    Column("since", Seconds, nullable=False),
)

certificates = _table(
    "certificates",
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
    Column("state", String(10), nullable=False),  # state of a certificate: intended, issued, revoked, held
    Column("fingerprint", LargeBinary),  # SHA-256 of the certificate's DER; NULL until it is signed
    # for searches: the kind of the key (NULL: unknown), and the present unit and category of the certificate's device
    Column("key_algorithm", String(12)),
    Column("unit", String(80)),
    Column("category", String(40)),
    # The index of this constraint begins with the serial: `certificates_by_authority` serves queries by authority.
    UniqueConstraint("serial", "authority_id"),
    UniqueConstraint("request_id"),
    Index("certificates_by_authority", "authority_id", "leaf_index"),
    Index("certificates_by_device", "device_id", "not_after"),
    Index("certificates_by_expiry", "not_after", "leaf_index"),
    Index("certificates_by_fingerprint", "fingerprint"),
    Index("certificates_by_key", "spki_sha256"),
    Index("certificates_by_state", "state", "leaf_index"),
    # for pages of a search, which are sorted by begin or by end
    Index("certificates_by_start", "not_before", "leaf_index", "not_after", *_NARROWING, "state"),
    _index_by_end("certificates_of_unit", "unit"),
    _index_by_end("certificates_of_category", "category"),
    _index_by_end("certificates_of_issuer", "authority_id"),
    _index_by_end("certificates_of_algorithm", "key_algorithm"),
    _index_by_end("certificates_of_profile", "profile"),
    _index_by_end("certificates_in_state", "state"),
    _index_where("profile || '' = 'idevid'", "certificates_by_birth", "owner"),
)

# the certificates' bytes, in a table of their own: whole scans read the narrow table `certificates` alone
certificate_bytes = _table(
    "certificate_bytes",
    Column("leaf_index", Number, ForeignKey("certificates.leaf_index"), primary_key=True, autoincrement=False),
    Column("tbs_der", LargeBinary, nullable=False),
    Column("certificate_der", LargeBinary),
)

# names by which certificates are found, folded to lower case; names that begin with the id of the certificate's own
# device are left out, because the device finds those
certificate_names = _table(
    "certificate_names",
    Column("name", String(255), primary_key=True),
    Column("leaf_index", Number, ForeignKey("certificates.leaf_index"), primary_key=True, autoincrement=False),
)

revocations = _table(
    "revocations",
    Column("leaf_index", Number, ForeignKey("certificates.leaf_index"), primary_key=True, autoincrement=False),
    # the revocation's step in the gapless sequence that every gateway follows
    Column("sequence", Number, nullable=False, unique=True),
    Column("authority_id", Integer, nullable=False),
    Column("serial", LargeBinary, nullable=False),
    Column("shard", Integer, nullable=False),
    Column("reason", Integer, nullable=False),  # reason code of RFC 5280 5.3.1
    Column("revoked_at", Seconds, nullable=False),
    Column("not_after", Number, nullable=False),
    # the entry in revokedCertificates (RFC 5280 5.1.2.6), encoded once for all CRLs
    Column("entry_der", LargeBinary, nullable=False),
    Index("revocations_by_shard", "authority_id", "shard", "leaf_index"),
    Index("revocations_by_step", "authority_id", "shard", "sequence"),
)

# every step of the gapless revocation sequence: revocations, holds and releases; `revoked` has the present state alone
revocation_events = _table(
    "revocation_events",
    Column("sequence", Number, primary_key=True, autoincrement=False),
    Column("authority_id", Integer, nullable=False),
    Column("serial", LargeBinary, nullable=False),
    Column("act", String(8), nullable=False),  # what the step did: revoke, hold, release
    Column("reason", Integer, nullable=False),
    Column("at", Seconds, nullable=False),
    Column("dated_at", Seconds),  # the date in CRLs and OCSP responses, where a CRL from elsewhere gave one
    Index("revocation_events_by_act", "act", "at"),
)

# the gapless sequence of changes that give rights to devices or take them; gateways follow it too
device_changes = _table(
    "device_changes",
    Column("sequence", Number, primary_key=True, autoincrement=False),
    Column("device_id", String(26), nullable=False),
    Column("at", Seconds, nullable=False),
)

crl_publications = _table(  # the newest CRL of each shard; CRL numbers never go back, also after a restore
    "crl_publications",
    Column("authority_id", Integer, ForeignKey("authorities.id"), primary_key=True),
    Column("shard", Integer, primary_key=True),  # CRL shard; -1: the complete CRL, without issuingDistributionPoint
    Column("number", BigInteger, nullable=False),
    Column("this_update", Seconds, nullable=False),
    Column("next_update", Seconds, nullable=False),
    Column("sequence", Number, nullable=False),  # the last step of the revocation sequence that the CRL covers
    Column("crl_der", LargeBinary, nullable=False),
)

crl_deltas = _table(  # delta CRLs (RFC 5280 5.2.4): what changed since the base CRL that the delta names
    "crl_deltas",
    Column("authority_id", Integer, ForeignKey("authorities.id"), primary_key=True),
    Column("shard", Integer, primary_key=True),
    Column("base_number", BigInteger, nullable=False),
    # the last step of the revocation sequence that the base CRL covers
    Column("base_sequence", Number, nullable=False),
    Column("this_update", Seconds, nullable=False),
    Column("number", BigInteger, nullable=False),
    Column("next_update", Seconds, nullable=False),
    Column("crl_der", LargeBinary),  # NULL until the first change after the base CRL
)

# no compression of CRLs: it takes long, and the writer would wait for it
_STORED_AS_IT_IS = DDL(  # type: ignore[no-untyped-call]
    "ALTER TABLE %(table)s ALTER COLUMN crl_der SET STORAGE EXTERNAL"
).execute_if(dialect="postgresql")
for _lists in (crl_publications, crl_deltas):
    event.listen(_lists, "after_create", _STORED_AS_IT_IS)

crl_shards = _table(  # places given out in each CRL shard, in blocks; a certificate never changes its shard
    "crl_shards",
    Column("authority_id", Integer, ForeignKey("authorities.id"), primary_key=True),
    Column("shard", Integer, primary_key=True),
    Column("places_taken", Integer, nullable=False),
)

leases = _table(  # leases: which process may do what only one may do at a time, and until when
    "leases",
    Column("name", String(80), primary_key=True),
    Column("holder", String(80), nullable=False),
    Column("until", Seconds, nullable=False),
)

revocation_plans = _table(  # mass revocations, which are counted, approved, run in stages, paused and resumed
    "revocation_plans",
    Column("id", Integer, primary_key=True),
    Column("selection", Text, nullable=False),  # JSON: which certificates the plan selects
    Column("act", String(8), nullable=False),  # the act of a revocation plan: revoke, hold, release
    Column("reason", Integer, nullable=False),
    # selected devices cannot enrol again until an operator allows it
    Column("locks_out", Boolean, nullable=False, default=False),
    Column("counts", Text, nullable=False),  # JSON: the counts that approvers saw
    Column("stages", Text, nullable=False),  # JSON: how many certificates in all are done after each stage
    Column("approvals_needed", Integer, nullable=False),
    Column("approvals", Text, nullable=False),  # JSON list of the operators who approved
    Column("state", String(10), nullable=False),  # state of a revocation plan: proposed, running, paused, done, stopped
    Column("made_by", String(100), nullable=False),
    Column("made_at", Seconds, nullable=False),
    Column("newest_leaf", Number, nullable=False),  # the plan touches no certificate of a later log leaf
    Column("newest_step", Number, nullable=False),  # the plan releases no hold of a later revocation step
    Column("position", Number, nullable=False),  # the last log leaf that the plan has done; -1 before the first
    Column("done", Integer, nullable=False),
    Column("stage", Integer, nullable=False),
    Column("stopped_because", Text),
    # the last device without a certificate that the plan has done; NULL before the first
    Column("device_position", String(26)),
    Column("devices_done", Integer, nullable=False, default=0, server_default="0"),
)

ocsp_responders = _table(
    "ocsp_responders",
    Column("authority_id", Integer, ForeignKey("authorities.id"), primary_key=True),
    Column("key_id", String(80), nullable=False),
    Column("keystore", String(80), nullable=False),
    Column("certificate_der", LargeBinary, nullable=False),
    Column("not_after", Seconds, nullable=False),
)

tokens = _table(  # one-time enrolment tokens, of which only the hash is stored
    "tokens",
    Column("token_sha256", LargeBinary, primary_key=True),
    Column("device_id", String(26), ForeignKey("devices.id"), nullable=False),
    Column("made_at", Seconds, nullable=False),
    Column("expires_at", Seconds, nullable=False),
    Column("bound_spki_sha256", LargeBinary),  # the public key that the token is bound to at first use
    Column("used_at", Seconds),
    Column("certificate_leaf_index", Number),
    Index("tokens_by_device", "device_id"),
)

verifier_memory = _table(  # what a verifier must remember over a restart: highest CRL numbers, latest times
    "verifier_memory",
    Column("name", String(120), primary_key=True),
    Column("number", BigInteger, nullable=False),  # the remembered number, clipped to 63 bits, for people
    Column("octets", LargeBinary, nullable=False),  # the remembered number itself, big-endian, up to 20 bytes
    Column("at", Seconds, nullable=False),
)

# durable jobs: business code inserts them in its own transaction, and server/jobs runs them under a lease
work = _table(
    "work",
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
