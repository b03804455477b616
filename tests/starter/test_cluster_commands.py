"""`hubless cluster rotate` and `remove` on registries that differ, and over a Secret that is broken."""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from activities.access.fake import FakeCluster
from activities.access.protocol import Object
from ramen import names
from ramen.copies import LINEAGE, Copy, annotation, edited
from ramen.kinds import CLUSTER_REGISTRY, NAMESPACE, SECRET
from ramen.objects import ClusterRegistry
from starter import installation
from starter.commands import cluster
from starter.failures import Refused
from starter.installation import Installation
from tests.worker.fakes import registry

TOKEN = "very-secret-token-0123456789"


class Member(FakeCluster):
    async def close(self) -> None:
        return


def kubeconfig(name: str) -> dict[str, Any]:
    return {"clusters": [{"name": name, "cluster": {"server": f"https://{name}"}}]}


def secret(name: str, text: str) -> Object:
    data = {names.KUBECONFIG_KEY: b64encode(text.encode()).decode()}
    return {"metadata": {"name": f"kubeconfig-{name}", "namespace": names.RAMEN_NAMESPACE}, "data": data}


def members(registries: dict[str, Object]) -> dict[str, Member]:
    """Clusters in memory, each with its registry and the kubeconfig of every other."""
    made = {}
    for name, body in registries.items():
        member = made[name] = Member(name)
        member.put(NAMESPACE, {"metadata": {"name": "kube-system", "uid": f"uid-{name}"}})
        member.put(NAMESPACE, {"metadata": {"name": names.RAMEN_NAMESPACE}})
        member.put(CLUSTER_REGISTRY, body)
        for other in registries:
            member.put(SECRET, secret(other, yaml.safe_dump(kubeconfig(other))))
    return made


@pytest.fixture
def entered(monkeypatch: pytest.MonkeyPatch) -> Callable[[dict[str, Member]], None]:
    """Lets the commands meet clusters in memory, with dr1 as the one that the own kubeconfig leads to."""

    def enter(found: dict[str, Member]) -> None:
        async def connect(name: str, _: Any) -> Member:
            return found[name]

        async def missing(*_: Any) -> list[str]:
            return []

        async def opened(_: str = "") -> Installation:
            body = found["dr1"].get(CLUSTER_REGISTRY, names.REGISTRY_NAME, "")
            return Installation(found["dr1"], "uid-dr1", ClusterRegistry.of(body))

        monkeypatch.setattr(cluster, "connect", connect)
        monkeypatch.setattr(installation, "connect", connect)
        monkeypatch.setattr(cluster, "missing", missing)
        monkeypatch.setattr(cluster, "read_kubeconfig", lambda _: kubeconfig("dr2"))
        monkeypatch.setattr(Installation, "open", opened)

    return enter


def known(member: Member) -> list[str]:
    body = member.get(CLUSTER_REGISTRY, names.REGISTRY_NAME, "")
    return [entry["name"] for entry in body["spec"]["clusters"]]


COMMANDS: dict[str, Callable[[], Awaitable[int]]] = {
    "rotate": lambda: cluster._rotate("dr2", Path("new.yaml"), "", False),
    "remove": lambda: cluster._remove("dr4", "", False),
}


@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
async def test_an_old_registry_overwrites_no_newer_one(
    entered: Callable[[dict[str, Member]], None], command: Callable[[], Awaitable[int]]
) -> None:
    """dr3 was added while dr1 was away, and the command is given on dr1 before its copy was brought up to date."""
    old = registry(dr1="uid-dr1", dr2="uid-dr2", dr4="uid-dr4")
    new = registry(dr1="uid-dr1", dr2="uid-dr2", dr4="uid-dr4", dr3="uid-dr3")
    before = annotation(Copy.of(old["spec"]["clusters"], "").lineage)
    old["metadata"]["annotations"] = {LINEAGE: before}
    new["metadata"]["annotations"] = {LINEAGE: edited(before, old["spec"]["clusters"], new["spec"]["clusters"])}
    found = members({"dr1": old, "dr2": new, "dr3": new, "dr4": new})
    entered(found)
    with pytest.raises(Refused, match="differs in dr3; nothing was changed"):
        await command()
    assert known(found["dr2"]) == ["dr1", "dr2", "dr4", "dr3"]


async def test_a_removal_that_was_cut_off_goes_on(entered: Callable[[dict[str, Member]], None]) -> None:
    whole, without = registry(dr1="uid-dr1", dr2="uid-dr2", dr4="uid-dr4"), registry(dr1="uid-dr1", dr2="uid-dr2")
    found = members({"dr1": whole, "dr2": without, "dr4": whole})
    entered(found)
    assert await COMMANDS["remove"]() == 0
    assert known(found["dr1"]) == ["dr1", "dr2"]


async def test_rotate_mends_a_secret_that_is_broken_and_does_not_quote_it(
    entered: Callable[[dict[str, Member]], None], capsys: pytest.CaptureFixture[str]
) -> None:
    body = registry(dr1="uid-dr1", dr2="uid-dr2")
    found = members({"dr1": body, "dr2": body})
    found["dr1"].put(SECRET, secret("dr2", f"users: [{{user: {{token: {TOKEN}"))
    entered(found)
    assert await COMMANDS["rotate"]() == 0
    written = found["dr1"].get(SECRET, "kubeconfig-dr2", names.RAMEN_NAMESPACE)
    assert yaml.safe_load(b64decode(written["data"][names.KUBECONFIG_KEY])) == kubeconfig("dr2")
    assert TOKEN not in "".join(capsys.readouterr())
