"""Judges a CA certificate from elsewhere by trial certificates that it would issue; signs and stores nothing.

A CA that our own verifier refuses must not become active: devices would enrol under it, and every gateway would refuse
them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

from vagus.authority.imports import ImportedChain, find_row_of
from vagus.clock import Clock
from vagus.errors import VagusError
from vagus.fleet.device_anchors import device_anchors
from vagus.identifiers import DeviceId
from vagus.keystore.private_keys import generate, spki_of
from vagus.policy.plans import AuthorityKind
from vagus.policy.values import PolicyPack
from vagus.records.authorities import ACTIVE, RETIRED, AuthorityRow, list_authorities
from vagus.records.engine.database import Database
from vagus.records.installation import load_installation
from vagus.trust.anchors import AnchorSet
from vagus.trust.status import UnsafeNoStatus
from vagus.trust.validation import Expectation, Role, Validator
from vagus.x509.algorithms import KeyAlgorithm
from vagus.x509.keys import decode_public_key
from vagus.x509.library_certificates import decode_certificate as load_certificate
from vagus.x509.lints import check_tbs
from vagus.x509.names.distinguished import SubjectFields, encode_subject
from vagus.x509.names.hardware_module import HardwareModule
from vagus.x509.paths.rules import DEVICE, IDEVID, PKIX, PathRules
from vagus.x509.profiles import Kind, NameForm, Profile
from vagus.x509.signatures import SignatureVerdicts
from vagus.x509.templates import Contents, IssuerFacts, assemble, build_tbs, device_subtree_constraints, issuer_facts

_DEVICE, _LABEL = DeviceId("a" * 26), "trial"
_SERIAL = 1 << 158
_SDC_PURPOSES = "1.2.840.10004.20701.1."
_ROLES = {
    AuthorityKind.ISSUING_CA: (Role.CLIENT,),
    AuthorityKind.SDC_CA: (Role.CLIENT, Role.SERVER),
    AuthorityKind.INFRASTRUCTURE_CA: (Role.SERVER,),
    AuthorityKind.LINE_CA: (Role.IDEVID,),
}
_NAME_FORMS = {AuthorityKind.INFRASTRUCTURE_CA: NameForm.SERVER, AuthorityKind.LINE_CA: NameForm.HARDWARE_MODULE}
_ROOT_RULES = replace(PKIX, name="root", applies_anchor_constraints=True)


@dataclass(frozen=True, slots=True)
class CaTrial:
    """Trials under the policy, the authorities and the clock of one installation.

    `host_names_of` gives the DNS names that the listeners of a hospital show, as far as they are planned.
    """

    pack: PolicyPack
    database: Database
    clock: Clock
    host_names_of: Callable[[str], Iterable[str]] = lambda _hospital: ()
    is_maker: bool = False

    def judge(self, name: str, kind: AuthorityKind, found: ImportedChain) -> None:
        """Check that the verifiers here would accept what this CA issues as authority `name`.

        Raises NotTrusted and Malformed as the validator does, and PolicyRefusal(LINT) where issuance would refuse.
        """
        with self.database.reading() as connection:
            domain = load_installation(connection).group_domain or ""
            parent = find_row_of(connection, found.chain_der[0]) if found.chain_der else None
            rows = [row for row in list_authorities(connection) if row.state in {ACTIVE, RETIRED}]
        hospital, _, unit = name.partition("/")
        host_names = tuple(self.host_names_of(hospital)) or (f"{_LABEL}.{hospital}.{domain}",)
        trial = _Trial(self.pack, self.clock.now(), hospital, unit or _LABEL, domain, host_names)
        # 1. The anchors that the listeners would have with this CA; for other kinds of CAs, the CA itself.
        anchors = AnchorSet.from_der([found.certificate_der])
        if kind in {AuthorityKind.DEVICE_CA, AuthorityKind.ISSUING_CA}:
            own = _row(name, kind, found, None if parent is None else parent.id)
            anchors, _ = device_anchors([*rows, own], hospital, [f"{hospital}/{trial.unit}"], domain)
        # 2. Beneath a CA that certifies CAs, put a trial CA of each level, down to one that issues.
        path, level = [found.certificate_der], kind
        while level.is_offline:
            level = self._level_below(level)
            rule = self.pack.authorities.of_kind(level, is_maker=self.is_maker)
            path.insert(0, trial.make(self.pack.profile(rule.profile), level, path[0]))
        # 3. Judge a trial certificate of every profile that such a CA issues. The anchor itself is held to the rules
        # for every CA. Relying parties that trust the root of the chain judge by RFC 5280 alone.
        for profile in self._profiles(level):
            leaf = trial.make(profile, level, path[0])
            for role in _ROLES[level]:
                rules = IDEVID if role is Role.IDEVID else DEVICE
                trial.check(leaf, path, anchors, replace(rules, checks_anchor_form=True), role, profile)
                if found.chain_der:
                    root, above = AnchorSet.from_der(found.chain_der[-1:]), [*path, *found.chain_der[:-1]]
                    trial.check(leaf, above, root, _ROOT_RULES, role, profile)
        # 4. Run the lints of issuance: what they refuse would never be issued.
        for draft in trial.drafts:
            check_tbs(*draft)

    def _level_below(self, kind: AuthorityKind) -> AuthorityKind:
        if self.is_maker:
            return AuthorityKind.LINE_CA
        return AuthorityKind.DEVICE_CA if kind is AuthorityKind.ROOT else AuthorityKind.ISSUING_CA

    def _profiles(self, kind: AuthorityKind) -> Sequence[Profile]:
        form = _NAME_FORMS.get(kind, NameForm.DEVICE)
        every = [one for one in self.pack.profiles.values() if one.kind is Kind.END_ENTITY and one.name_form is form]
        if kind is not AuthorityKind.SDC_CA:
            return every
        return [one for one in every if any(oid.startswith(_SDC_PURPOSES) for oid in one.extended_key_usage)]


@dataclass(frozen=True, slots=True)
class _Trial:
    """Certificates that are built and not signed: `verdicts` takes their signatures for good."""

    pack: PolicyPack
    at: datetime
    hospital: str
    unit: str
    domain: str
    host_names: tuple[str, ...]
    verdicts: SignatureVerdicts = field(default_factory=SignatureVerdicts)
    drafts: list[tuple[bytes, Profile, IssuerFacts]] = field(default_factory=list)

    def make(self, profile: Profile, level: AuthorityKind, issuer_der: bytes) -> bytes:
        """A certificate of `profile` by `issuer_der`; `level` is the kind of CA that it is, or that issues it."""
        issuer, form = issuer_facts(load_certificate(issuer_der)), profile.name_form
        lifetime = profile.default_lifetime
        ends = [issuer.not_after, None if lifetime is None else self.at.replace(microsecond=0) + lifetime]
        key = generate(min(profile.key_algorithms, key=list(KeyAlgorithm).index))
        is_of_unit = level is AuthorityKind.ISSUING_CA or form is NameForm.DEVICE
        own = f"{self.unit}.{self.hospital}.{self.domain}" if is_of_unit else f"{self.hospital}.{self.domain}"
        names = {NameForm.DEVICE: (f"{_DEVICE}.{own}",), NameForm.SERVER: self.host_names}
        module = HardwareModule(f"{self.pack.arc}.4", _LABEL.encode())
        # each CA has a name of its own: self-issued certificates are not counted in the length of a path
        common_name = str(_DEVICE) if form is NameForm.DEVICE else f"{_LABEL} {profile.name}"
        serial_number = _LABEL if form is NameForm.HARDWARE_MODULE else None
        contents = Contents(
            profile=profile,
            public_key=decode_public_key(spki_of(key)),
            subject_der=encode_subject(SubjectFields("Trial", common_name=common_name, serial_number=serial_number)),
            serial=_SERIAL,
            not_before=self.at.replace(microsecond=0),
            not_after=min((one for one in ends if one is not None), default=None),
            dns_names=names.get(form, ()),
            hardware_module=module if form is NameForm.HARDWARE_MODULE else None,
            crl_url=f"http://{_LABEL}.invalid/crl",
            ocsp_url=f"http://{_LABEL}.invalid/ocsp",
            name_constraints=device_subtree_constraints(own) if profile.is_name_constrained else None,
        )
        tbs_der = build_tbs(contents, issuer)
        self.drafts.append((tbs_der, profile, issuer))
        made = assemble(tbs_der, issuer.signature_algorithm, bytes(64))
        self.verdicts.unsafe_believe(hashlib.sha256(made).digest(), hashlib.sha256(issuer.spki_der).digest())
        return made

    def check(
        self,
        leaf: bytes,
        path: Sequence[bytes],
        anchors: AnchorSet,
        rules: PathRules,
        role: Role,
        profile: Profile,
    ) -> None:
        """Raises as `Validator.validate`, with the profile of the refused trial certificate in the message."""
        is_device = profile.name_form is NameForm.DEVICE
        expectation = Expectation(
            role=role,
            group_domain=self.domain,
            units=frozenset({f"{self.hospital}/{self.unit}"}) if role is Role.CLIENT else None,
            needs_identity=is_device,
            host_name=self.host_names[0] if profile.name_form is NameForm.SERVER else None,
        )
        validator = Validator(anchors, UnsafeNoStatus(), profile=rules, verdicts=self.verdicts)
        try:
            validator.validate(leaf, path, expectation, self.at)
        except VagusError as fault:
            by, remedy = "our own gateways", "have the CA certified anew"
            if rules is _ROOT_RULES:
                by = "relying parties that trust the root in its chain"
                remedy = f"{remedy}, or leave the certificates above it out of the chain"
            msg = f"{by} would refuse each {profile.name} certificate of this CA as {role}: {fault.message}; {remedy}"
            raise type(fault)(fault.reason, msg, **fault.facts) from fault


def _row(name: str, kind: AuthorityKind, found: ImportedChain, parent_id: int | None) -> AuthorityRow:
    """The row that the CA would have."""
    return AuthorityRow(
        name=name,
        generation=0,
        kind=kind,
        parent_id=parent_id,
        is_offline=kind.is_offline,
        state=ACTIVE,
        key_id="",
        keystore="",
        spki_sha256=found.public_key.spki_sha256,
        request_der=None,
        certificate_der=found.certificate_der,
    )
