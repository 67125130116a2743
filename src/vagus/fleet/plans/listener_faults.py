"""Why a listener of a plan cannot be served: one check for `plan check`, `plan apply`, `serve` and `doctor`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from vagus.addresses import join_address, split_address
from vagus.errors import Misconfigured
from vagus.fleet.lifecycle import HAS_ENDED
from vagus.policy.plan_files import PlannedListener
from vagus.policy.plans import HospitalPlan, Plan
from vagus.policy.values import PolicyPack
from vagus.reasons import Reason
from vagus.records.devices import find_device_by_serial, list_profiles_in
from vagus.records.engine.database import Connection, Database
from vagus.x509.lints.keys_and_hosts import is_host_label

HEALTH = "health"
"""The name of the listener for operators, which no plan names."""
_EVERY = frozenset({"0.0.0.0", "::"})  # noqa: S104 recognised here, and bound by no line of this module


def find_faults(
    plan: Plan, pack: PolicyPack, database: Database, elsewhere: Mapping[str, str], *, asks_inventory: bool = True
) -> dict[str, str]:
    """The listeners of a plan that cannot be served, each with the reason and the remedy.

    `elsewhere` has addresses of this node by listener, as its settings name them; that of `health` counts as taken.
    Without `asks_inventory` the devices that the plan names count alone: admission refuses any other device below its
    TLS minimum by itself.
    """
    faults: dict[str, str] = {}
    taken: dict[str, tuple[str, int]] = {}
    if HEALTH in elsewhere:
        taken[HEALTH] = split_address(elsewhere[HEALTH])
    with database.reading() as connection:
        for one in plan.listeners:
            address = split_address(elsewhere[one.name]) if one.name in elsewhere else one.address
            found = [*_address_faults(one.name, address, taken), *_name_faults(one)]
            if isinstance(plan, HospitalPlan):
                found += _peer_faults(connection, plan, pack, one, asks_inventory=asks_inventory)
            if found:
                faults[one.name] = f"listeners.{one.name}.{found[0]}"
            else:
                taken[one.name] = address
    return faults


def check_served(plan: Plan, pack: PolicyPack, database: Database, elsewhere: Mapping[str, str]) -> None:
    """Raises Misconfigured(BAD_PLAN) with every listener of the plan that cannot be served."""
    faults = find_faults(plan, pack, database, elsewhere)
    if faults:
        raise Misconfigured(Reason.BAD_PLAN, "\n".join(faults.values()), listener=", ".join(faults))


def _address_faults(name: str, address: tuple[str, int], taken: Mapping[str, tuple[str, int]]) -> Iterator[str]:
    host, port = address
    if name in taken:
        yield f"name: {name!r} is the name of the address for operators in vagus.toml; rename the listener"
    for other, (its_host, its_port) in taken.items():
        is_every = (host in _EVERY or its_host in _EVERY) and (":" in host) is (":" in its_host)
        if port and port == its_port and (host == its_host or is_every):
            where = join_address(host, port)
            yield f"address: {where} is the address of listener {other} too; choose another port, here or in vagus.toml"


def _name_faults(listener: PlannedListener) -> Iterator[str]:
    """What the lints of issuance refuse in the listener's own certificate."""
    for name in listener.host_names:
        odd = [label for label in name.split(".") if not is_host_label(label)]
        if odd:
            yield f"host_names: label {odd[0]!r} of {name} is no A-label (RFC 5890 2.3.1); correct it"


def _peer_faults(
    connection: Connection, plan: HospitalPlan, pack: PolicyPack, listener: PlannedListener, *, asks_inventory: bool
) -> Iterator[str]:
    planned = {(one.model, one.maker_serial) for one in plan.each_device()} if listener.registration_authorities else ()
    for model, serial in listener.registration_authorities:
        if (model, serial) not in planned and find_device_by_serial(connection, model, serial) is None:
            yield (
                f"registration_authorities: {model}:{serial} is neither in the plan nor in the inventory; "
                "add it or correct the plan"
            )
    if listener.tls_minimum != "1.2":
        return
    # TLS 1.2 shows the client's certificate in clear: never where implants or home devices connect. Both are asked:
    # the plan, whose devices may still come, and the inventory, which is filled by others too.
    categories: Mapping[str, str] = {model.name: model.category for model in plan.models}
    profiles = {
        pack.profile_of_category(categories[group.model]) for group in plan.devices if group.unit in listener.units
    }
    if asks_inventory:
        profiles |= list_profiles_in(connection, listener.units, beside=HAS_ENDED)
    bare = sorted(name for name, rule in pack.rules.items() if name in profiles and rule.tls_minimum == "1.3")
    if bare:
        yield (
            f"tls_minimum: its units have devices of profile {', '.join(bare)}, whose "
            f"certificates TLS 1.2 would show in clear; set 1.3, or leave their units out"
        )
