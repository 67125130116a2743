"""docs/reference says what the models and the shipped policy pack say."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from tests import reference_pages
from vagus.policy.documents import Document
from vagus.policy.pack_files import PackFile
from vagus.policy.packs import SHIPPED
from vagus.policy.plan_files import HospitalFile, MakerFile
from vagus.settings import _SettingsFile

PAGES = reference_pages.build_pages()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_page_of_the_reference_is_true(page: Path) -> None:
    assert page.read_text("utf-8") == PAGES[page], "run: make reference"


@pytest.mark.parametrize("model", [HospitalFile, MakerFile, PackFile, _SettingsFile])
def test_every_key_has_a_meaning(model: type[Document]) -> None:
    for section in reference_pages._walk(model):
        meanings = reference_pages._meanings(section.model)
        assert set(meanings) == set(section.model.model_fields), section.title


def test_every_category_of_the_shipped_pack_is_listed_with_its_profile() -> None:
    rules: dict[str, Any] = tomllib.loads(SHIPPED.read_text("utf-8"))["rules"]
    shipped = {(category, name) for name, rule in rules.items() for category in rule.get("categories", ())}
    text = PAGES[reference_pages.FOLDER / "categories.md"].partition("## What the rules say")[0]
    assert set(re.findall(r"^\| `([\w-]+)` \| `([\w-]+)` \|$", text, re.MULTILINE)) == shipped


def test_a_limit_and_a_default_stand_beside_their_key() -> None:
    text = PAGES[reference_pages.FOLDER / "settings.md"]
    assert "| `connections` | integer from 1, up to 1,000,000 | `20000` |" in text
    assert '| `kdf` | `"scrypt"` or `"pbkdf2"` | `"scrypt"` |' in text
