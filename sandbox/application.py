"""The demo application: a Deployment that writes to a few volumes, and its entry in the sandbox.

Registered applications are what the GitOps stand-in knows how to apply, as a repository of manifests would be.
"""

from __future__ import annotations

import os
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from activities.access.protocol import ClusterAccess, Object
from ramen.errors import AlreadyExists
from ramen.kinds import DEPLOYMENT, NAMESPACE, PVC, Kind

DIRECTORY = "applications"
APPLICATION = "hubless.io/sandbox-app"
"""Label on everything that belongs to a demo application; its value is the application's name."""

IMAGE = "registry.k8s.io/pause:3.10"
"""Never pulled: the nodes are played by KWOK, and the storage array does the writing."""


class Application(BaseModel):
    """A demo application; the file `applications/<namespace>-<name>.json` of the sandbox."""

    model_config = ConfigDict(extra="forbid")

    namespace: str
    name: str
    placement: str
    """Name of the Placement whose decisions say where it runs."""
    volumes: int = 2
    storage_class: str = "array"
    size: str = "1Gi"
    deployed: str | None = None
    """Cluster where it was deployed by hand; GitOps leaves it alone until there is a decision."""

    @classmethod
    def of(cls, namespace: str, name: str, placement: str | None = None, volumes: int = 2) -> Application:
        """An application with the usual name of its placement, `<name>-placement`, unless another is given."""
        return cls(namespace=namespace, name=name, placement=placement or f"{name}-placement", volumes=volumes)

    @property
    def labels(self) -> dict[str, str]:
        """On every object; `app=<name>` is what a DRPlacementControl's pvcSelector selects."""
        return {"app": self.name, APPLICATION: self.name}

    @property
    def claim_names(self) -> list[str]:
        """Names of the PVCs."""
        return [f"{self.name}-data-{number}" for number in range(1, self.volumes + 1)]

    def claims(self) -> list[Object]:
        """The PVCs, without a volume: binding is the cluster's work."""
        return [
            {
                "metadata": {"name": name, "namespace": self.namespace, "labels": self.labels},
                "spec": {
                    "accessModes": ["ReadWriteOnce"],
                    "resources": {"requests": {"storage": self.size}},
                    "storageClassName": self.storage_class,
                },
            }
            for name in self.claim_names
        ]

    def deployment(self) -> Object:
        """One pod that mounts every claim; Recreate, because the volumes take one writer at a time."""
        container = {
            "name": "writer",
            "image": IMAGE,
            "volumeMounts": [{"name": name, "mountPath": f"/data/{name}"} for name in self.claim_names],
        }
        pod = {
            "automountServiceAccountToken": False,
            "containers": [container],
            "tolerations": [{"key": "kwok.x-k8s.io/node", "operator": "Exists"}],
            "volumes": [{"name": name, "persistentVolumeClaim": {"claimName": name}} for name in self.claim_names],
        }
        return {
            "metadata": {"name": self.name, "namespace": self.namespace, "labels": self.labels},
            "spec": {
                "replicas": 1,
                "strategy": {"type": "Recreate"},
                "selector": {"matchLabels": {APPLICATION: self.name}},
                "template": {"metadata": {"labels": self.labels}, "spec": pod},
            },
        }

    def manifests(self) -> list[tuple[Kind, Object]]:
        """Everything to apply, in order."""
        return [*((PVC, claim) for claim in self.claims()), (DEPLOYMENT, self.deployment())]


def register(directory: Path, application: Application) -> None:
    """Makes the application known to GitOps, or replaces what is known of it, in one step."""
    folder = directory / DIRECTORY
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{application.namespace}-{application.name}.json"
    temporary = path.with_suffix(".new")
    temporary.write_text(application.model_dump_json(indent=2))
    os.replace(temporary, path)


def unregister(directory: Path, namespace: str, name: str) -> None:
    """Takes the application out of GitOps' sight; what runs goes on running. Not being known is no error."""
    (directory / DIRECTORY / f"{namespace}-{name}.json").unlink(missing_ok=True)


def registered(directory: Path) -> list[Application]:
    """Every registered application, by file name."""
    found = []
    for path in sorted((directory / DIRECTORY).glob("*.json")):
        try:
            found.append(Application.model_validate_json(path.read_text()))
        except FileNotFoundError:
            continue
    return found


async def ensure(access: ClusterAccess, application: Application) -> list[str]:
    """Creates what the cluster lacks of an application, namespace included; changes nothing that is there.

    Returns `Kind/name` of what was created. A PVC that the dr-cluster operator restored stays as it is.
    """
    created = []
    namespace: tuple[Kind, Object] = (NAMESPACE, {"metadata": {"name": application.namespace}})
    for kind, body in [namespace, *application.manifests()]:
        name = body["metadata"]["name"]
        if await access.read(kind, name, body["metadata"].get("namespace")) is not None:
            continue
        try:
            await access.create(kind, body)
        except AlreadyExists:
            continue
        created.append(f"{kind.kind}/{name}")
    return created


async def deploy(directory: Path, access: ClusterAccess, application: Application) -> Application:
    """Deploys an application by hand, as it would be before anybody protects it, and registers it."""
    await ensure(access, application)
    placed = application.model_copy(update={"deployed": access.name})
    register(directory, placed)
    return placed
