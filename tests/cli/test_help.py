"""Every command's help says what it does, and its examples are commands that there are."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from typing import Any

import pytest
from typer.main import get_command

from tests.cli.test_documents import check_spoken
from vagus.cli.application import application


def commands(group: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    for name, one in group.commands.items():
        if getattr(one, "commands", None):
            yield from commands(one, (*path, name))
        else:
            yield " ".join((*path, name)), one


ALL = dict(commands(get_command(application)))
SELF_EVIDENT = {"ca list", "ca show", "ca forget-dates", "revoke resume"}


def examples(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if line.strip().startswith("vagus ")]


@pytest.mark.parametrize("name", ALL)
def test_each_command_shows_an_example_of_itself(name: str) -> None:
    if name in SELF_EVIDENT:
        return
    said = examples(ALL[name].epilog or "")
    assert any(f" {name}" in line for line in said), f"vagus {name} --help shows no example"
    for line in said:
        words = shlex.split(line.split(" > ")[0].split(" 3< ")[0])[1:]
        check_spoken(words[2:] if words[0] == "--dir" else words)


def test_the_examples_of_mass_revocation_are_commands_that_there_are() -> None:
    group = get_command(application).commands["revoke"]  # type: ignore[attr-defined]
    said = examples(group.help)
    assert len(said) == 4
    for line in said:
        check_spoken(shlex.split(line)[1:])


@pytest.mark.parametrize("name", ALL)
def test_arguments_and_options_say_what_they_are(name: str) -> None:
    for one in ALL[name].params:
        if one.name != "help":
            assert one.help, f"vagus {name}: {one.name} says nothing"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("token make", ("7 days", "90 days", "inventory", "--token")),
        ("ca import", ("applied plan", "newest CRL", "passphrase", "revoke-earlier", "destroy KEY")),
        ("restore", ("new or empty", "restore-gap", "published log")),
        ("revoke run", ("approvals", "paused")),
        ("revoke stop", ("stays done", "pause")),
        ("validate", ("Needs no installation", "revocation")),
    ],
)
def test_a_help_names_what_a_command_needs_and_changes(name: str, words: tuple[str, ...]) -> None:
    one = ALL[name]
    said = " ".join(f"{one.help} {' '.join(param.help or '' for param in one.params)} {one.epilog}".split())
    for word in words:
        assert word in said, f"vagus {name} --help does not speak of {word}"
