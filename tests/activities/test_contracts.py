"""Every contract has one implementation, of the same name, input and result, on a queue that serves it."""

from __future__ import annotations

import inspect
import typing
from typing import Any

import pytest

from activities import contracts, registry
from tests.activities.fakes import World

CONTRACTS: dict[str, Any] = {
    name: vars(value)["__temporal_activity_definition"]
    for name, value in vars(contracts).items()
    if hasattr(value, "__temporal_activity_definition")
}


@pytest.fixture
async def registered() -> registry.Registered:
    world = World()
    return registry.register(world, world.mirror, {})


def implementations(registered: registry.Registered) -> dict[str, Any]:
    found = {}
    for method in (*registered.control, *registered.cluster, *registered.own):
        found[method.__func__.__temporal_activity_definition.name] = method
    return found


async def test_each_contract_is_implemented_and_nothing_else_is(registered: registry.Registered) -> None:
    assert sorted(implementations(registered)) == sorted(definition.name for definition in CONTRACTS.values())


@pytest.mark.parametrize("name", sorted(CONTRACTS))
async def test_the_implementation_takes_and_gives_what_the_contract_says(
    registered: registry.Registered, name: str
) -> None:
    method, contract = implementations(registered)[name], getattr(contracts, name)
    wanted, given = inspect.signature(contract), inspect.signature(method)
    assert list(given.parameters) == list(wanted.parameters)
    hints = typing.get_type_hints(method.__func__)
    hints.pop("self", None)
    assert hints == typing.get_type_hints(contract)


def test_the_contract_is_registered_under_its_own_name() -> None:
    assert {name: definition.name for name, definition in CONTRACTS.items()} == {name: name for name in CONTRACTS}
