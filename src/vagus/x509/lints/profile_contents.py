"""What a Vagus profile asks of a certificate: it contains what the profile lists, and nothing else."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import TYPE_CHECKING

from vagus.x509 import der, oids
from vagus.x509.extensions import BasicConstraints
from vagus.x509.lints.registry import Document
from vagus.x509.names.distinguished import COMMON_NAME, COUNTRY, ORGANISATION, UNIT
from vagus.x509.names.general import Form
from vagus.x509.names.hardware_module import HARDWARE_MODULE_NAME
from vagus.x509.profiles import Kind, NameForm
from vagus.x509.templates import EVERY_ADDRESS

if TYPE_CHECKING:
    from vagus.x509.lints.parsed_tbs import Draft

PROFILE_CONTENTS = Document("Vagus profiles", "house")

_BACKDATE = timedelta(hours=1)  # issuance dates notBefore this far back, for peers whose clock is late
_LONGEST_IDENTITY = 128
_IDENTITY = re.compile(r"[a-z2-7]{25}[aeimquy4]\.[a-z0-9](?:[a-z0-9.-]*[a-z0-9])?\Z")
_SERVER_FORMS = frozenset({Form.DNS, Form.IP})
_DEVICE_ATTRIBUTES = frozenset({COUNTRY, ORGANISATION, UNIT, COMMON_NAME})
_KNOWN = frozenset(
    {
        oids.BASIC_CONSTRAINTS,
        oids.KEY_USAGE,
        oids.SUBJECT_KEY_IDENTIFIER,
        oids.AUTHORITY_KEY_IDENTIFIER,
        oids.EXTENDED_KEY_USAGE,
        oids.SUBJECT_ALT_NAME,
        oids.NAME_CONSTRAINTS,
        oids.CERTIFICATE_POLICIES,
        oids.CRL_DISTRIBUTION_POINTS,
        oids.AUTHORITY_INFO_ACCESS,
        oids.OCSP_NOCHECK,
        oids.NO_REV_AVAIL,
    }
)


@PROFILE_CONTENTS.lint("extensions-listed", "contents")
def extensions_listed(draft: Draft) -> str | None:
    """No extension that our templates never write."""
    unknown = draft.fields.by_oid.keys() - _KNOWN
    return f"extension {min(unknown)} is not one that our profiles have" if unknown else None


@PROFILE_CONTENTS.lint("basic-constraints", "contents")
def basic_constraints(draft: Draft) -> str | None:
    """Also end entities say, critically, that they are no authority."""
    if draft.profile.kind is Kind.AUTHORITY or draft.is_critical(oids.BASIC_CONSTRAINTS):
        return None
    return "basicConstraints is missing or not critical"


@PROFILE_CONTENTS.lint("authority", "contents")
def authority(draft: Draft) -> str | None:
    """Exactly the profiles of authorities give an authority, with their path length."""
    if draft.basic is None:
        return None
    is_authority, length = draft.profile.kind is Kind.AUTHORITY, draft.profile.path_length
    if draft.basic.is_ca is is_authority and draft.basic.path_length == length:
        return None
    return f"basicConstraints {draft.basic} is not the profile's {BasicConstraints(is_authority, length)}"


@PROFILE_CONTENTS.lint("key-usage", "contents")
def key_usage(draft: Draft) -> str | None:
    """The profile's key usages."""
    if not draft.key_usage:
        return None
    return None if draft.key_usage == draft.profile.key_usage else "keyUsage is not the profile's"


@PROFILE_CONTENTS.lint("purposes", "contents")
def purposes(draft: Draft) -> str | None:
    """The profile's purposes in their order; absent where it has none."""
    if draft.purposes is None and draft.has(oids.EXTENDED_KEY_USAGE):
        return None  # the lint rfc5280-der reports what does not decode
    return None if (draft.purposes or ()) == draft.profile.extended_key_usage else "extKeyUsage is not the profile's"


@PROFILE_CONTENTS.lint("policies", "contents")
def policies(draft: Draft) -> str | None:
    """The profile's policies."""
    if draft.policies is None and draft.has(oids.CERTIFICATE_POLICIES):
        return None
    found = frozenset(map(der.oid_text, draft.policies.oids)) if draft.policies else frozenset()
    expected = frozenset(draft.profile.certificate_policies)
    return None if found == expected else "certificatePolicies are not the profile's"


@PROFILE_CONTENTS.lint("key-algorithm", "contents")
def key_algorithm(draft: Draft) -> str | None:
    """A kind of key that the profile allows."""
    if draft.key_algorithm is None or draft.key_algorithm in draft.profile.key_algorithms:
        return None
    return f"key algorithm {draft.key_algorithm} is not among the profile's"


@PROFILE_CONTENTS.lint("lifetime", "contents")
def lifetime(draft: Draft) -> str | None:
    """At most the profile's longest lifetime, with the hour of backdating."""
    longest = draft.profile.longest_lifetime
    if longest is None:
        return None
    span = draft.fields.not_after - draft.fields.not_before
    return None if span <= longest + _BACKDATE else f"lifetime {span} exceeds the profile's {longest}"


@PROFILE_CONTENTS.lint("outlives-issuer", "contents")
def outlives_issuer(draft: Draft) -> str | None:
    """Nothing is valid longer than what signs it."""
    limit = draft.issuer.not_after
    if limit is None or draft.fields.not_after <= limit:
        return None
    return f"notAfter lies after the issuer's {limit:%Y-%m-%d %H:%M:%S}Z"


@PROFILE_CONTENTS.lint("serial-size", "contents")
def serial_size(draft: Draft) -> str | None:
    """Exactly 20 bytes, so that 128 bits and more are random."""
    return None if 152 <= draft.fields.serial.bit_length() <= 159 else "serial number does not have 20 bytes"


@PROFILE_CONTENTS.lint("name-form", "names")
def name_form(draft: Draft) -> str | None:
    """The profile's form of name and no other: name constraints bind only the forms that they list."""
    names = draft.names
    match draft.profile.name_form:
        case NameForm.DEVICE:
            is_right = len(names.dns) == names.count == 1
        case NameForm.SERVER:
            is_right = names.count > 0 and names.forms <= _SERVER_FORMS
        case NameForm.HARDWARE_MODULE:
            is_right = len(names.others) == names.count == 1 and names.others[0][0] is Form.OTHER_NAME
            is_right = is_right and names.others[0][1].startswith(_HARDWARE_MODULE)
        case NameForm.NONE:
            is_right = not draft.has(oids.SUBJECT_ALT_NAME)
    if is_right:
        return None
    found = [form.spelling for form in sorted(names.forms)]
    return f"names {found} are not what {draft.profile.name_form} means"


_HARDWARE_MODULE = der.object_identifier(HARDWARE_MODULE_NAME)


def _identity(draft: Draft) -> str | None:
    """The identity of a device certificate, where there is one to judge."""
    is_device = draft.profile.name_form is NameForm.DEVICE and len(draft.names.dns) == draft.names.count == 1
    return draft.names.dns[0] if is_device else None


@PROFILE_CONTENTS.lint("identity-canonical", "names")
def identity_canonical(draft: Draft) -> str | None:
    """`<device id>.<subtree>` in lower case, at most 128 characters."""
    identity = _identity(draft)
    if identity is None or (len(identity) <= _LONGEST_IDENTITY and _IDENTITY.match(identity)):
        return None
    return f"identity {identity!r} is not <device id>.<subtree> of at most 128 characters"


@PROFILE_CONTENTS.lint("identity-common-name", "names")
def identity_common_name(draft: Draft) -> str | None:
    """CN repeats the device id, so that people and names never disagree."""
    identity = _identity(draft)
    if identity is None:
        return None
    device = identity.partition(".")[0].encode()
    names = [one.value for attributes in draft.subject for one in attributes if one.oid == COMMON_NAME]
    return None if names == [device] else "CN is not the device id"


@PROFILE_CONTENTS.lint("subject-attributes", "names")
def subject_attributes(draft: Draft) -> str | None:
    """A device's subject has no serial number, no place and nothing else about the device."""
    if draft.profile.name_form is not NameForm.DEVICE:
        return None
    for attributes in draft.subject:
        if len(attributes) != 1 or attributes[0].oid not in _DEVICE_ATTRIBUTES:
            return f"subject attribute {attributes[0].oid} has no place in a device's subject"
    return None


@PROFILE_CONTENTS.lint("subtree", "names")
def subtree(draft: Draft) -> str | None:
    """Every host name lies in what the issuer may name, else every verifier refuses it."""
    permitted = draft.issuer.permitted_dns
    if not permitted:
        return None
    for name in draft.names.dns:
        text = name.lower()
        if not any(text == one or text.endswith("." + one) or not one for one in permitted):
            return f"dNSName {text!r} lies outside the issuer's {', '.join(permitted)}"
    return None


@PROFILE_CONTENTS.lint("wildcard", "names")
def wildcard(draft: Draft) -> str | None:
    """No wildcard: a certificate names who it is for."""
    return "a dNSName has a wildcard" if any("*" in name for name in draft.names.dns) else None


@PROFILE_CONTENTS.lint("name-constraints", "names")
def name_constraints(draft: Draft) -> str | None:
    """Device, unit and SDC authorities are bound in host names, mail and addresses, others in nothing."""
    if not draft.profile.is_name_constrained:
        return "nameConstraints in a profile without them" if draft.has(oids.NAME_CONSTRAINTS) else None
    if not draft.has(oids.NAME_CONSTRAINTS):
        return "nameConstraints is missing"
    if draft.constraints is None:
        return None  # other lints report what is forbidden or does not decode
    permitted = {one.form for one in draft.constraints.permitted}
    excluded = {one.content for one in draft.constraints.excluded if one.form is Form.IP}
    # A CA above that excludes every address does so for all below it (RFC 5280 6.1.4 (g)).
    has_addresses_bound = Form.IP in permitted or excluded >= EVERY_ADDRESS or draft.issuer.excludes_addresses
    is_bound = {Form.EMAIL, Form.DNS} <= permitted and has_addresses_bound
    return None if is_bound else "nameConstraints leave host names, mail or addresses free"


@PROFILE_CONTENTS.lint("crl-pointer", "contents")
def crl_pointer(draft: Draft) -> str | None:
    """One CRL pointer where the profile has it, over plain HTTP: fetching it must not need a certificate."""
    if draft.has(oids.CRL_DISTRIBUTION_POINTS) is not draft.profile.has_crl_pointer:
        return (
            "cRLDistributionPoints is missing" if draft.profile.has_crl_pointer else "cRLDistributionPoints is present"
        )
    points = draft.crl_points
    if points is None or all(not uris for uris in points):
        return None
    return (
        None if len(points) == 1 and len(points[0]) == 1 and points[0][0].startswith("http://") else "CRL not by HTTP"
    )


@PROFILE_CONTENTS.lint("ocsp-pointer", "contents")
def ocsp_pointer(draft: Draft) -> str | None:
    """One OCSP pointer where the profile has it, over plain HTTP."""
    found = [uri for method, uri in draft.access or () if method == oids.OCSP_ACCESS]
    if len(found) != int(draft.profile.has_ocsp_pointer):
        return f"{len(found)} OCSP pointers, the profile has {int(draft.profile.has_ocsp_pointer)}"
    return None if all(uri is not None and uri.startswith("http://") for uri in found) else "OCSP not by HTTP"


@PROFILE_CONTENTS.lint("access-methods", "contents")
def access_methods(draft: Draft) -> str | None:
    """OCSP and caIssuers, nothing else."""
    methods = {method for method, _ in draft.access or ()}
    return None if methods <= {oids.OCSP_ACCESS, oids.CA_ISSUERS_ACCESS} else "an access method that we do not serve"


@PROFILE_CONTENTS.lint("short-lived", "contents")
def short_lived(draft: Draft) -> str | None:
    """`noRevAvail` exactly where the profile is short-lived."""
    return (
        None
        if draft.has(oids.NO_REV_AVAIL) is draft.profile.is_short_lived
        else "noRevAvail is not as the profile has it"
    )
