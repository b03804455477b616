"""What lies in S3: the documents of the mirror (design 8), and how the dr-cluster operator's own objects are read.

Keys are in `ramen.names`. A document of the mirror is plain JSON that people can read with any S3 client. Fields are
only ever added, so that workers of different releases understand each other: a reader ignores what it does not know.
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, Self

from pydantic import AwareDatetime, BaseModel, ConfigDict, ValidationError

from ramen.app import Volume
from ramen.epoch import Epoch
from ramen.errors import Invalid
from ramen.names import epoch_prefix, pv_prefix, pvc_prefix


class Document(BaseModel):
    """Base of the mirror's documents; `version` grows when the meaning of a field changes."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    version: int = 1

    def encode(self) -> bytes:
        """The document as it is stored."""
        return self.model_dump_json(indent=1).encode()

    @classmethod
    def decode(cls, body: bytes, key: str = "") -> Self:
        """Reads a stored document; raises `Invalid`, naming the key, for anything else."""
        try:
            return cls.model_validate_json(body)
        except ValidationError as err:
            first = err.errors()[0]
            field = ".".join(str(part) for part in first["loc"])
            raise Invalid(f"S3 object {key or cls.__name__} cannot be read: {field} {first['msg']}".rstrip()) from err


class LockDocument(Document):
    """The advisory lock of an application (S13).

    `expires` tells people; software goes by an ETag that stands still, which `renewals` changes each time.
    """

    holder: str
    workflow_id: str = ""
    run_id: str = ""
    epoch: Epoch
    acquired: AwareDatetime
    expires: AwareDatetime
    renewals: int = 0
    attempt: int = 1
    """Of the activity that renewed it: one that was taken for dead and wakes up leaves the lock to its successor."""

    def is_of(self, holder: str, epoch: Epoch) -> bool:
        """Whether `holder` may treat the lock as its own in the action of `epoch`.

        The name alone does not say so: a later action of its own has taken over (S5), and in a copied Temporal
        database both halves go by the same name (S1).
        """
        return self.holder == holder and (self.epoch == epoch or self.epoch.number < epoch.number)

    def is_of_action(self, workflow_id: str, run_id: str = "") -> bool:
        """Whether this very action has it, one run of it where `run_id` is given.

        Two actions of one holder may meet in one epoch: a Reprotect that was told to end still holds the lock for some
        seconds while the next action has taken it.
        """
        return self.workflow_id in ("", workflow_id) and (not run_id or self.run_id in ("", run_id))


class EpochClaim(Document):
    """The claim of one epoch (S1); the same `request_id` always meets its own token again."""

    number: int
    token: str
    action: str
    request_id: str
    holder: str = ""
    """Who claims, for people: a worker or a workflow."""
    claimed_at: AwareDatetime

    @property
    def epoch(self) -> Epoch:
        """Number and token."""
        return Epoch(number=self.number, token=self.token)


class StateDocument(Document):
    """All that `adopt` needs beside the clusters (D13)."""

    spec: dict[str, Any] = {}
    """The application as the entity holds it (`ramen.app.AppSpec`)."""
    wanted: dict[str, dict[str, Any]] = {}
    """D(c) by cluster (`ramen.app.Wanted`), with the debts that no cluster shows (D4)."""
    volumes: list[Volume] = []
    """Volumes last known to be protected (S3)."""
    phase: str = ""
    progression: str = ""
    conditions: list[dict[str, Any]] = []
    observed: dict[str, Any] = {}
    epoch: Epoch
    written_at: AwareDatetime
    """The workflow's time, one clock for all writes of an epoch, so that a late retry is known as the older one."""


class DecisionDocument(Document):
    """Where the application is to run; `retained` clusters keep their workload until they are demoted."""

    cluster: str | None = None
    previous: str | None = None
    retained: list[str] = []
    epoch: Epoch
    decided_at: AwareDatetime


class WitnessDocument(Document):
    """Volumes that were seen in sync at the demotion of `epoch` (S4)."""

    epoch: Epoch
    volumes: list[Volume] = []
    seen_at: AwareDatetime


class HistoryDocument(Document):
    """One finished action."""

    epoch: Epoch
    action: str
    result: str = ""
    requester: str = ""
    reason: str = ""
    started_at: AwareDatetime | None = None
    finished_at: AwareDatetime | None = None
    times: dict[str, float] = {}
    """Seconds from the request to serving, cleaned and re-protected (D6)."""
    steps: list[dict[str, Any]] = []


class ClusterStatusDocument(Document):
    """What a worker last knew of a cluster."""

    cluster: str
    reachable: bool = True
    last_seen: AwareDatetime
    """The last answer of its API server before the document was written, which is no heartbeat."""
    written_at: AwareDatetime | None = None
    api_server_version: str = ""
    operator_version: str = ""
    worker: str = ""

    @property
    def told_at(self) -> datetime:
        """When this was said: of two documents the later one counts."""
        return self.written_at or self.last_seen


def newest_claim_key(namespace: str, name: str, keys: Iterable[str]) -> str | None:
    """The key of the highest number among an application's claims; other keys are passed over."""
    prefix = epoch_prefix(namespace, name)
    claims = {int(key[len(prefix) :]): key for key in keys if key.startswith(prefix) and key[len(prefix) :].isdecimal()}
    return claims[max(claims)] if claims else None


def decode_operator_object(body: bytes) -> dict[str, Any]:
    """Reads an object that the dr-cluster operator stored: gzip around JSON (vrg.md 3.1).

    `apiVersion` and `kind` may be missing. Raises `Invalid` when it is not such an object.
    """
    try:
        obj = json.loads(gzip.decompress(body))
    except (OSError, EOFError, zlib.error, ValueError) as err:
        raise Invalid(f"not an object of the dr-cluster operator: {err}") from err
    if not isinstance(obj, dict):
        raise Invalid(f"not an object of the dr-cluster operator: a JSON {type(obj).__name__}")
    return obj


def protected_volumes(namespace: str, name: str, objects: Mapping[str, bytes]) -> list[Volume]:
    """Volumes of a VRG that can be restored from `objects` (key to stored bytes): PVC and its PV both present.

    A PVC's key may lack the PVC's namespace, which then is the VRG's (vrg.md 3.2). Raises `Invalid`, naming the key,
    for an unreadable PV or PVC, since the operator's restore gives up on the whole store then (vrg.md 3.4).
    """
    pv_keys, pvc_keys = pv_prefix(namespace, name), pvc_prefix(namespace, name)
    pvs: set[str] = set()
    claims: set[tuple[str, str, str]] = set()
    for key, body in objects.items():
        if not key.startswith((pv_keys, pvc_keys)):
            continue
        try:
            obj = decode_operator_object(body)
        except Invalid as err:
            raise Invalid(f"S3 object {key} is {err}") from err
        if key.startswith(pv_keys):
            pvs.add(key[len(pv_keys) :])
        else:
            pvc_namespace, _, pvc_name = key[len(pvc_keys) :].rpartition("/")
            claims.add((pvc_namespace or namespace, pvc_name, (obj.get("spec") or {}).get("volumeName") or ""))
    return [Volume(namespace=where, name=pvc, pv=pv) for where, pvc, pv in sorted(claims) if pv in pvs]
