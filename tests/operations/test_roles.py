"""The table of roles and acts: complete, and asked first by every operation."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from vagus.errors import NotAuthorised
from vagus.identifiers import UnitName
from vagus.operations import roles
from vagus.operations.actor import Actor, ActorKind, Role
from vagus.operations.roles import Act, check_may, check_scope
from vagus.reasons import Reason

FOLDER = Path(roles.__file__).parent
MAINTENANCE = FOLDER.parent / "maintenance"
ICU, ER = UnitName("h1", "icu"), UnitName("h1", "er")


def actor(*held: Role, scope: frozenset[UnitName] | None = None) -> Actor:
    return Actor("operator:anna", ActorKind.LOCAL_ACCOUNT, frozenset(held), scope)


def operations() -> list[ast.FunctionDef]:
    """Every public method of operations and function of maintenance that takes an actor."""
    trees = [ast.parse(path.read_text()) for path in sorted(FOLDER.rglob("*.py"))]
    classes = [node for tree in trees for node in tree.body if isinstance(node, ast.ClassDef)]
    found = [node for one in classes for node in one.body if isinstance(node, ast.FunctionDef)]
    for path in sorted(MAINTENANCE.glob("*.py")):
        found += [node for node in ast.parse(path.read_text()).body if isinstance(node, ast.FunctionDef)]
    is_asked = [one for one in found if "actor" in {argument.arg for argument in one.args.args}]
    return [one for one in is_asked if not one.name.startswith("_")]


def acts_named(method: ast.FunctionDef) -> list[str]:
    """The acts that a method asks the table for."""
    calls = [node for node in ast.walk(method) if isinstance(node, ast.Call)]
    named = [call for call in calls if isinstance(call.func, ast.Name) and call.func.id == "check_may"]
    return [call.args[1].attr for call in named if isinstance(call.args[1], ast.Attribute)]


@pytest.mark.parametrize("method", operations(), ids=lambda method: method.name)
def test_an_operation_first_asks_the_table_for_its_one_act(method: ast.FunctionDef) -> None:
    first = method.body[1]  # after the docstring
    assert isinstance(first, ast.Expr), "the first statement is check_may"
    assert isinstance(first.value, ast.Call)
    assert isinstance(first.value.func, ast.Name)
    assert first.value.func.id == "check_may"
    assert len(acts_named(method)) == 1


def test_every_act_has_a_user_and_a_role() -> None:
    used = {name for method in operations() for name in acts_named(method)}
    assert used == {act.name for act in Act}
    assert all(act.roles for act in Act)


def test_an_actor_without_the_role_is_refused_with_a_reason_and_the_role() -> None:
    for act in Act:
        with pytest.raises(NotAuthorised, match="needs the role") as refusal:
            check_may(actor(*(set(Role) - act.roles)), act)
        assert refusal.value.reason is Reason.ACT_FORBIDDEN
        for role in act.roles:
            check_may(actor(role), act)


def test_a_narrower_scope_admits_acts_on_one_unit_and_only_on_its_units() -> None:
    engineer = actor(*Role, scope=frozenset({ICU}))
    for act in Act:
        if act.is_on_one_unit:
            check_may(engineer, act)
        else:
            with pytest.raises(NotAuthorised, match="not h1/icu"):
                check_may(engineer, act)
    check_scope(engineer, ICU)
    for unit in (ER, None):
        with pytest.raises(NotAuthorised, match="name one of these units") as refusal:
            check_scope(engineer, unit)
        assert refusal.value.reason is Reason.ACT_FORBIDDEN
    check_scope(actor(Role.AUDITOR), None)
