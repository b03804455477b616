"""An installation as its administrator reaches it: one cluster by a kubeconfig of their own, the others from there.

The one place of the command line that talks to API servers itself: it sets up what the workers need before they can
work. It goes the way of a worker: the registry and the Secrets of one cluster lead to all others.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from activities.access.direct import DirectAccess
from ramen import kubeconfig as kubeconfigs
from ramen import names
from ramen.copies import LINEAGE, edited
from ramen.errors import ClusterUnreachable, Forbidden, HublessError, Invalid, NotFound, Unauthorized
from ramen.kinds import CLUSTER_REGISTRY, NAMESPACE, SECRET
from ramen.objects import ClusterRegistry, RegisteredCluster
from starter.failures import Refused

Access = DirectAccess
"""How the commands call a client of one cluster."""

IDENTITY_NAMESPACE = "kube-system"
"""Its UID is the cluster's fingerprint (S11)."""


def secret_name(cluster: str) -> str:
    """Name of the Secret with a cluster's kubeconfig, unless its registry entry names another."""
    return f"kubeconfig-{cluster}"


def read_kubeconfig(path: Path) -> dict[str, Any]:
    """A kubeconfig file's current context with everything inside, fit for a Secret.

    Raises `Refused`, naming the file and the remedy.
    """
    try:
        content = yaml.safe_load(path.read_text())
    except OSError as err:
        raise Refused(f"{path}: {err.strerror}. Name a readable kubeconfig.") from None
    except (yaml.YAMLError, UnicodeDecodeError):
        raise Refused(f"{path} is no YAML. Name a kubeconfig.") from None
    if not isinstance(content, dict):
        raise Refused(f"{path} holds no kubeconfig. Name a kubeconfig.")
    try:
        content = kubeconfigs.only_current(content)
        if kubeconfigs.programs(content) or any(entry["user"].get("tokenFile") for entry in content["users"]):
            raise Invalid(kubeconfigs.problem_in_secret(content))
        inside = {name: (path.parent / name).read_bytes() for name in kubeconfigs.files(content)}
        content = kubeconfigs.inlined(content, inside)
        if problem := kubeconfigs.problem_without_credential(content):
            raise Invalid(f"{problem}; put a token of the ServiceAccount hubless-worker into it")
    except OSError as err:
        raise Refused(f"{path} names {err.filename}: {err.strerror}.") from None
    except Invalid as err:
        raise Refused(f"{path} is not fit for a Secret: {err}.") from None
    return content


def secret_body(name: str, content: dict[str, Any]) -> dict[str, Any]:
    """The Secret that holds a kubeconfig."""
    text = yaml.safe_dump(content, sort_keys=False)
    return {
        "metadata": {"name": name, "namespace": names.RAMEN_NAMESPACE},
        "type": "Opaque",
        "data": {names.KUBECONFIG_KEY: b64encode(text.encode()).decode()},
    }


async def connect(name: str, content: dict[str, Any]) -> Access:
    """A client made from a kubeconfig; nothing is contacted yet. Raises `Refused`."""
    try:
        return await DirectAccess.from_kubeconfig(name, content)
    except Invalid as err:
        raise Refused(f"{err}.") from None


async def uid_of(access: Access) -> str:
    """The cluster's fingerprint. Raises what the read raises."""
    found = await access.read(NAMESPACE, IDENTITY_NAMESPACE)
    if found is None:
        raise ClusterUnreachable(f"{access.name} answers without a namespace {IDENTITY_NAMESPACE}")
    return str(found["metadata"]["uid"])


@dataclass
class Member:
    """One cluster of the registry, and the way to it."""

    entry: RegisteredCluster
    access: Access | None = None
    problem: str = ""
    """Why there is no access; one line with the remedy."""
    registry: ClusterRegistry | None = None
    """As it stands on that cluster."""
    kubeconfig: dict[str, Any] | None = None
    """What its Secret on the first cluster holds."""


@dataclass
class Installation:
    """The cluster that the administrator's kubeconfig leads to, and the members that its registry names."""

    home: Access
    home_uid: str
    registry: ClusterRegistry | None
    members: dict[str, Member] = field(default_factory=dict)

    @classmethod
    async def open(cls, context: str = "") -> Installation:
        """Reads the registry by the administrator's own kubeconfig. Raises `Refused` with what to set."""
        try:
            home = await DirectAccess.from_own_kubeconfig(context)
        except Invalid as err:
            raise Refused(f"{err}.\n  Set KUBECONFIG, or name a context of it: --context NAME") from None
        try:
            found = await home.read(CLUSTER_REGISTRY, names.REGISTRY_NAME)
            return cls(home, await uid_of(home), ClusterRegistry.of(found) if found else None)
        except HublessError as err:
            await home.close()
            hint = "Choose a cluster that answers: --context NAME"
            if isinstance(err, NotFound) or type(err).__name__ == "KindMissing":
                hint = "Install the CRDs there: hubless crds | kubectl apply --server-side -f -"
            raise Refused(f"{err}.\n  {hint}") from None

    async def close(self) -> None:
        """Closes all connections."""
        for access in {id(access): access for access in [self.home, *self._opened()]}.values():
            await access.close()

    def _opened(self) -> Iterable[Access]:
        return (member.access for member in self.members.values() if member.access is not None)

    @property
    def entries(self) -> list[RegisteredCluster]:
        """The registry's clusters; none when there is no registry yet."""
        return list(self.registry.spec.clusters) if self.registry else []

    def home_name(self) -> str:
        """Name of the cluster that the own kubeconfig leads to; empty when the registry does not know it."""
        return next((entry.name for entry in self.entries if entry.cluster_uid == self.home_uid), "")

    async def reach_members(self) -> None:
        """Opens every member, the others by their Secrets; a member out of reach says why."""
        for entry in self.entries:
            member = Member(entry)
            self.members[entry.name] = member
            try:
                member.kubeconfig = await self._kubeconfig(entry)
                member.access = (
                    self.home if entry.cluster_uid == self.home_uid else await self._reach(entry, member.kubeconfig)
                )
                found = await member.access.read(CLUSTER_REGISTRY, names.REGISTRY_NAME)
                member.registry = ClusterRegistry.of(found) if found else None
            except (HublessError, Refused) as err:
                if member.access is not None and member.access is not self.home:
                    await member.access.close()
                member.access, member.problem = None, str(err).splitlines()[0]

    async def _kubeconfig(self, entry: RegisteredCluster) -> dict[str, Any] | None:
        """None where there is none that can be read; why is not said, since the reason quotes what is secret."""
        secret = await self.home.read(SECRET, entry.kubeconfig_secret, names.RAMEN_NAMESPACE)
        text = ((secret or {}).get("data") or {}).get(names.KUBECONFIG_KEY)
        try:
            found = yaml.safe_load(b64decode(text)) if text else None
        except (yaml.YAMLError, ValueError):
            return None
        return found if isinstance(found, dict) else None

    async def _reach(self, entry: RegisteredCluster, content: dict[str, Any] | None) -> Access:
        where = f"Secret {names.RAMEN_NAMESPACE}/{entry.kubeconfig_secret}"
        if content is None:
            raise Invalid(f"{where} holds no kubeconfig: hubless cluster rotate {entry.name} --kubeconfig FILE")
        if problem := kubeconfigs.problem_in_secret(content):
            raise Invalid(f"{where} is not used: {problem}")
        access = await connect(entry.name, content)
        try:
            if await uid_of(access) != entry.cluster_uid:
                raise Invalid(f"{where} reaches another cluster, not {entry.name}")
        except Unauthorized:
            await access.close()
            raise Unauthorized(
                f"{entry.name} refuses {where} (401): hubless cluster rotate {entry.name} --kubeconfig FILE"
            ) from None
        except HublessError:
            await access.close()
            raise
        return access


async def write_secret(access: Access, body: dict[str, Any]) -> bool:
    """Makes a Secret say what `body` says; False when it did already. Raises what the calls raise."""
    name = body["metadata"]["name"]
    found = await access.read(SECRET, name, names.RAMEN_NAMESPACE)
    if found is None:
        await access.create(SECRET, body)
        return True
    if (found.get("data") or {}) == body["data"]:
        return False
    await access.replace(SECRET, {**_noted(found, found.get("data"), body["data"]), "data": body["data"]})
    return True


async def write_registry(access: Access, clusters: list[RegisteredCluster]) -> bool:
    """Makes the registry of a cluster name exactly these; False when it did already."""
    wanted = [entry.model_dump(mode="json") for entry in clusters]
    found = await access.read(CLUSTER_REGISTRY, names.REGISTRY_NAME)
    if found is None:
        await access.create(CLUSTER_REGISTRY, {"metadata": {"name": names.REGISTRY_NAME}, "spec": {"clusters": wanted}})
        return True
    spec = found.get("spec") or {}
    if spec.get("clusters") == wanted:
        return False
    noted = _noted(found, spec.get("clusters"), wanted)
    await access.replace(CLUSTER_REGISTRY, {**noted, "spec": {**spec, "clusters": wanted}})
    return True


def _noted(found: dict[str, Any], before: Any, content: Any) -> dict[str, Any]:
    """The object with the history that workers compare copies by, so that this edit follows from what was there."""
    annotations = dict(found["metadata"].get("annotations") or {})
    annotations[LINEAGE] = edited(annotations.get(LINEAGE, ""), before, content)
    return {**found, "metadata": {**found["metadata"], "annotations": annotations}}


async def delete_secret(access: Access, name: str) -> str:
    """Deletes a Secret as it was read (S7); a line that says what is left to do where the right is missing."""
    found = await access.read(SECRET, name, names.RAMEN_NAMESPACE)
    if found is None:
        return ""
    metadata = found["metadata"]
    try:
        await access.delete(SECRET, name, names.RAMEN_NAMESPACE, metadata["uid"], metadata["resourceVersion"])
    except Forbidden:
        return (
            f"Secret {names.RAMEN_NAMESPACE}/{name} stays on {access.name}: workers may not delete Secrets. "
            f"Delete it there: kubectl -n {names.RAMEN_NAMESPACE} delete secret {name}"
        )
    return ""
