"""Writes docs/reference from the models of plan, policy pack and settings, and from the shipped pack: `make reference`.

Types, defaults and limits come from the pydantic models, meanings from the docstrings below their fields.
"""

from __future__ import annotations

import ast
import inspect
import itertools
import textwrap
import types
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from enum import Enum
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from annotated_types import Ge, Gt, Le, MaxLen, MinLen
from pydantic import StringConstraints
from pydantic.fields import FieldInfo

from vagus import settings
from vagus.policy import pack_checks, pack_files, plan_files, plans, values
from vagus.policy.documents import Document
from vagus.policy.packs import SHIPPED, PolicyPack, load_pack
from vagus.policy.values import Function, spell_duration
from vagus.x509.algorithms import KeyAlgorithm
from vagus.x509.oids import PURPOSES

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "docs" / "reference"
MADE = "<!-- made by `make reference`: edit the docstrings of the models, not this page -->"


@cache
def _hints(model: type[Document]) -> dict[str, Any]:
    return get_type_hints(model, include_extras=True)


_INSTALLATION = _hints(settings._InstallationTable)
FORMS: dict[str, tuple[Any, str]] = {
    "label": (plan_files.Label, "1-20 of a-z, 0-9 and inner hyphens"),
    "title": (plan_files.Title, "1-64 printable characters, in any script"),
    "name": (plan_files.Name, "1-80 letters, digits, spaces and `. _ + -`"),
    "prefix": (plan_files.Prefix, "1-32 of A-Z, 0-9 and inner hyphens"),
    "category": (plan_files.Category, "1-40 of a-z, 0-9 and hyphens, one of [categories.md](categories.md)"),
    "country": (plan_files.Country, "two capital letters (ISO 3166)"),
    "host name": (plan_files.HostName, "lower case, at least two labels, at most 200 characters"),
    "status URL": (plan_files.StatusUrl, "`http://host[:port][/path]` without a slash at its end; not https"),
    "address": (plan_files.Address, "`host:port`, as in `127.0.0.1:8443`; port 0 takes a free one"),
    "host and port": (plan_files.HostAndPort, "`host:port`, as in `127.0.0.1:8443`; port 0 takes a free one"),
    "device": (plan_files.DeviceReference, "`MODEL:SERIAL`, as in `Keystone Gateway:KGW-000001`"),
    "duration": (values.Duration, "a number and `s`, `m`, `h`, `d` or `y` (365 days), as in `365d`"),
    "lifetime": (values.Lifetime, "a duration, or `unlimited` (no expiry, RFC 5280 4.1.2.5)"),
    "grace": (values.Grace, "a duration, or `none`"),
    "slug": (values.Slug, "1-40 of a-z, 0-9 and inner hyphens"),
    "OID": (pack_files.Dotted, "numbers with dots, at most 128 characters"),
    "log origin": (_INSTALLATION["origin"], "a lower-case name with path parts, as in `log.hospital.example/vagus`"),
    "database URL": (_INSTALLATION["database"], "`sqlite:///FILE` or `postgresql+psycopg://...`"),
}
"""How values are spelt that a check beyond their type holds, by the name that the tables use."""


@dataclass(frozen=True, slots=True)
class Section:
    """One table of a TOML file, and the model that reads it."""

    path: tuple[str, ...]
    is_array: bool
    model: type[Document]
    limits: str = ""

    @property
    def title(self) -> str:
        name = ".".join(self.path)
        if not name:
            return "### Top of the file"
        return f"### `[[{name}]]`" if self.is_array else f"### `[{name}]`"


def build_pages() -> dict[Path, str]:
    """Every page of docs/reference with its text."""
    pages = {
        "plan.md": _plan_page(),
        "policy-pack.md": _pack_page(),
        "settings.md": _settings_page(),
        "categories.md": _categories_page(load_pack()),
    }
    return {FOLDER / name: text for name, text in pages.items()}


# --- pages -----------------------------------------------------------------------------------------------------------


def _plan_page() -> str:
    return _page(
        "plan.toml",
        "A plan says what an installation has: hospitals, units, models, devices and listeners, or a maker's "
        "models and "
        "batches. `vagus plan check PLAN` shows what it would change, `vagus plan apply PLAN` changes it. The folder "
        "[examples](../../examples) has plans to begin with. An unknown key is an error.",
        '## A hospital group\'s plan: `kind = "hospital"`',
        *_sections(plan_files.HospitalFile),
        '## A maker\'s plan: `kind = "maker"`',
        *_sections(plan_files.MakerFile),
        *_forms(plan_files.HospitalFile, plan_files.MakerFile),
        "## Rules between keys",
        _list(
            f"A unit is not called {_listed(sorted(plans.RESERVED_UNITS))}: these are the hospital's own branches.",
            f"A hospital is not called {_listed(sorted(plans.RESERVED_HOSPITALS))}: these are keystores.",
            f"One plan counts at most {plans._MOST_DEVICES:,} devices. No number of a model is counted twice.",
            "Names of hospitals, units, models, listeners and batches are unique, and so are serial prefixes.",
            "A host name belongs to one device, and never to a device and a listener.",
            f"The identity name of a device has at most {plans._LONGEST_IDENTITY} characters.",
            "A relay has an `upstream`, and no other listener has one. Only an enrolment listener has "
            "`registration_authorities`. A maker's listeners are of kind `status`.",
            "Devices that a new plan leaves out stay as they are, as do those that came by a manifest or `vagus device "
            "add`. An authority that it leaves out is retired, and the plan is refused while certificates of that "
            "authority live.",
        ),
    )


def _pack_page() -> str:
    bounds = [
        ("`longest_lifetime` of a profile whose rule is class III or life-sustaining", pack_checks._LONGEST_CRITICAL),
        ("`longest_lifetime` of a profile whose rule has another class", pack_checks._LONGEST_DEVICE),
        ("`longest_lifetime` of a profile with `short_lived`", pack_checks._LONGEST_SHORT_LIVED),
        *((f"`profiles.{name}.longest_lifetime`", most) for name, most in pack_checks._LONGEST_OF.items()),
        ("`functions.NAME.grace`", pack_checks._LONGEST_GRACE),
        *((f"`{key}`", most) for key, most, _ in pack_checks._BOUNDS),
    ]
    return _page(
        "Policy pack",
        "A policy pack says what certificates contain, who may have them, and how fast revocations act. The "
        "shipped one is "
        f"[{SHIPPED.name}](../../{SHIPPED.relative_to(ROOT)}). [categories.md](categories.md) shows what it says "
        "of each "
        "device category. For production copy it, set your own OID arc, and name the copy in `vagus.toml`.",
        *_sections(pack_files.PackFile),
        *_forms(pack_files.PackFile),
        "## Upper limits",
        _table(("value", "at most"), [(what, f"`{spell_duration(most)}`") for what, most in bounds]),
        "## Rules between keys",
        _list(
            f"Every pack has the profiles {_listed(pack_checks.REQUIRED_PROFILES)}.",
            "Each profile of kind `end_entity` has a rule of the same name.",
            f"{_listed(pack_checks._MUST_FAIL_SECURE)} fail `secure`, without grace, and close open sessions.",
            f"{_listed(sorted(pack_checks._OFFLINE))} are offline, and the other kinds of authorities are not.",
            "An authority does not live longer than its issuer. A unit CA is re-keyed while the longest leaf still "
            "fits.",
            "`serverAuth` needs a profile with host names. `OCSPSigning` is for responders alone.",
            f"Purposes have these names: {_listed(sorted(PURPOSES))}.",
        ),
    )


def _settings_page() -> str:
    return _page(
        "vagus.toml",
        "The settings of an installation, in its folder (mode 0600). `vagus init` writes the file. Each command "
        "and `serve` "
        "read it when they start. An unknown key is an error.",
        *_sections(settings._SettingsFile),
        *_forms(settings._SettingsFile),
    )


def _categories_page(pack: PolicyPack) -> str:
    categories = sorted((category, name) for name, rule in pack.rules.items() for category in rule.categories)
    rules = [
        (
            f"`{name}`",
            rule.exposure.value,
            rule.device_class.value if rule.device_class else "-",
            "yes" if rule.is_life_sustaining else "no",
            f"{_span(pack.profile(name).default_lifetime)}, {_span(pack.profile(name).longest_lifetime)}",
            rule.tls_minimum,
            rule.session_on_revocation.value,
            str(rule.review_approvals),
            ", ".join(one.value for one in Function if one in rule.functions) or "-",
        )
        for name, rule in pack.rules.items()
    ]
    purposes = {oid: name for name, oid in PURPOSES.items()}
    contents = [
        (
            f"`{name}`",
            ", ".join(purposes.get(oid, oid) for oid in pack.profile(name).extended_key_usage) or "-",
            ", ".join(key.value for key in KeyAlgorithm if key in pack.profile(name).key_algorithms),
        )
        for name in pack.rules
    ]
    functions = [
        (
            f"`{name.value}`",
            one.fail_mode.value,
            spell_duration(one.status_max_age),
            spell_duration(one.grace) if one.grace else "none",
            "always" if one.always_closes else "as the rule of its profile says",
        )
        for name, one in pack.functions.items()
    ]
    return _page(
        "Device categories",
        f"What the shipped policy pack `{pack.name}`, version {pack.version}, says of each device category. A "
        "model of a "
        "plan names its category. The category chooses the profile, and the profile has a rule. Another category "
        "needs a "
        "pack of your own: add it to the `categories` of one rule ([policy-pack.md](policy-pack.md)).",
        "## Category and profile",
        _table(("category", "profile"), [(f"`{category}`", f"`{name}`") for category, name in categories]),
        "Profiles without a category are for servers, signers, IDevIDs, SDC peers and emergencies.",
        "## What the rules say",
        _table(
            (
                "profile",
                "lives",
                "FDA class",
                "life-sustaining",
                "lifetime: default, longest",
                "oldest TLS",
                "open session on revocation",
                "approvals",
                "may connect for",
            ),
            rules,
        ),
        "`degrade` keeps open sessions for telemetry, alarms and imaging. Those for control, programming and firmware "
        "always close. Therapy and local alarms never depend on a certificate.",
        "## What the certificates contain",
        _table(("profile", "extended key usage", "keys"), contents),
        "## Functions of a connection",
        _table(
            ("function", "fail mode", "oldest status", "grace after that", "session of a revoked device closes"),
            functions,
        ),
    )


# --- models ----------------------------------------------------------------------------------------------------------


def _walk(
    model: type[Document], path: tuple[str, ...] = (), *, is_array: bool = False, limits: str = ""
) -> Iterator[Section]:
    """The tables of a file, depth first; several keys with one model become one table named KIND."""
    yield Section(path, is_array, model, limits)
    below = {name: found for name, hint in _hints(model).items() if (found := _find_model(hint))}
    for name, (shape, nested) in below.items():
        alike = [other for other, (_, one) in below.items() if one is nested]
        if len(alike) > 1:
            if name == alike[0]:
                yield from _walk(nested, (*path, "KIND"))
        else:
            steps = (name, "NAME") if shape is dict else (name,)
            limits = ", ".join(filter(None, map(_spell_limits, getattr(_hints(model)[name], "__metadata__", ()))))
            yield from _walk(nested, (*path, *steps), is_array=shape is list, limits=limits)


def _find_model(hint: Any) -> tuple[type, type[Document]] | None:
    """The model in a list, a dictionary or by itself, with the shape around it."""
    if get_origin(hint) is Annotated:
        return _find_model(get_args(hint)[0])
    if get_origin(hint) in {list, dict}:
        found = _find_model(get_args(hint)[-1])
        return None if found is None else (get_origin(hint), found[1])
    return (object, hint) if inspect.isclass(hint) and issubclass(hint, Document) else None


@cache
def _meanings(model: type[Document]) -> dict[str, str]:
    """The docstring below each field of a model."""
    source = ast.parse(Path(inspect.getfile(model)).read_text("utf-8"))
    (body,) = (one.body for one in source.body if isinstance(one, ast.ClassDef) and one.name == model.__name__)
    found = {}
    for field, below in itertools.pairwise(body):
        if isinstance(field, ast.AnnAssign) and isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant):
            found[ast.unparse(field.target)] = " ".join(str(below.value.value).split())
    return found


def _sections(model: type[Document]) -> Iterator[str]:
    for section in _walk(model):
        fields, hints, meanings = section.model.model_fields, _hints(section.model), _meanings(section.model)
        shown = {name: field for name, field in fields.items() if _find_model(hints[name]) is None}
        if shown:
            rows = [
                (f"`{one.alias or name}`", _spell_type(hints[name]), _spell_default(one), meanings.get(name, ""))
                for name, one in shown.items()
            ]
            table = _table(("key", "type", "default", "meaning"), rows)
        elif section.path:
            table = _table(("key", "meaning"), [(f"`{name}`", meanings.get(name, "")) for name in fields])
        else:
            continue
        purpose = " ".join((vars(section.model).get("__doc__") or "").split())
        yield from (section.title, f"{purpose} Tables: {section.limits}." if section.limits else purpose, table)


def _spell_type(hint: Any) -> str:
    if (form := _find_form(hint)) is not None:
        return form
    origin, parts = get_origin(hint), get_args(hint)
    if origin is Annotated:
        limits = ", ".join(filter(None, map(_spell_limits, parts[1:])))
        words, colon, of = _spell_type(parts[0]).partition(":")
        return f"{words}{', ' if colon and limits else ' ' if limits else ''}{limits}{colon}{of}"
    if origin in {Union, types.UnionType}:
        return _spell_type(next(one for one in parts if one is not type(None)))
    if origin is Literal:
        return " or ".join(f"`{_toml(value)}`" for value in parts)
    if origin is dict:
        return f"table: {_spell_type(parts[0])} = {_spell_type(parts[1])}"
    if origin in {list, tuple, frozenset}:
        return f"list: {_spell_type(parts[0])}"
    if issubclass(hint, Enum):
        return ", ".join(f"`{_toml(one.value)}`" for one in hint)
    return {bool: "`true` or `false`", int: "integer", float: "number", str: "text"}[hint]


def _spell_limits(given: Any) -> str:
    """The bounds in an annotation, as words after the type."""
    if isinstance(given, StringConstraints):
        return f"matching `{given.pattern}`"
    limits: list[Any] = given.metadata if isinstance(given, FieldInfo) else []
    found = []
    for one in limits:
        match one:
            case Ge():
                found.append(f"from {one.ge:,}")
            case Gt():
                found.append(f"above {one.gt:,}")
            case Le():
                found.append(f"up to {one.le:,}")
            case MinLen():
                found.append(f"at least {one.min_length:,}")
            case MaxLen():
                found.append(f"at most {one.max_length:,}")
    return ", ".join(found)


def _spell_default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    return f"`{_toml(value)}`" if isinstance(value, bool | int | float | str) else "none"


def _find_form(hint: Any) -> str | None:
    return next((name for name, (form, _) in FORMS.items() if form == hint), None)


def _used_forms(hint: Any) -> Iterator[str]:
    if (form := _find_form(hint)) is not None:
        yield form
        return
    for part in get_args(hint):
        yield from _used_forms(part)


# --- Markdown --------------------------------------------------------------------------------------------------------


def _forms(*models: type[Document]) -> Iterator[str]:
    hints = (hint for model in models for section in _walk(model) for hint in _hints(section.model).values())
    used = {form for hint in hints for form in _used_forms(hint)}
    yield "## How values are written"
    yield _table(("type", "written"), [(name, text) for name, (_, text) in FORMS.items() if name in used])


def _page(title: str, *blocks: str) -> str:
    shown = (block if block.startswith(("#", "|", "- ")) else _wrap(block) for block in blocks)
    return "\n\n".join([f"# {title}", MADE, *shown]) + "\n"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines)


def _list(*items: str) -> str:
    return "\n".join(_wrap(f"- {item}", "  ") for item in items)


def _wrap(text: str, indent: str = "") -> str:
    return textwrap.fill(text, 120, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)


def _listed(words: Sequence[str]) -> str:
    return ", ".join(f"`{word}`" for word in words)


def _toml(value: object) -> str:
    return f'"{value}"' if isinstance(value, str) else str(value).lower() if isinstance(value, bool) else f"{value}"


def _span(lifetime: timedelta | None) -> str:
    return "unlimited" if lifetime is None else spell_duration(lifetime)


if __name__ == "__main__":
    for page, text in build_pages().items():
        page.parent.mkdir(exist_ok=True)
        page.write_text(text, "utf-8")
