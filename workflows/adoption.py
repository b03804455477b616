"""The entity's state, rebuilt from clusters and stores: pure, nothing is guessed that protects data (D13)."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

from pydantic import TypeAdapter, ValidationError

from activities.contracts import MirrorSeen, ProtectRequest
from ramen import names
from ramen.app import ActionKind, AppSpec, Decision, Observed, Role, Volume, Wanted
from ramen.desired import is_released
from ramen.epoch import Epoch
from ramen.recovery import Inference, Verdict, own_epoch
from ramen.words import counted
from workflows.inputs import ActionRecord, AdoptRequest, AppState, Debt, Outcome

_VOLUMES = TypeAdapter(list[Volume])
_TIMES = TypeAdapter(dict[str, datetime])


def changed_since(looks: list[Observed], stamped: list[Observed]) -> list[str]:
    """Clusters whose VRG was given another role or spec between a look and its claim, or went; both in one order."""

    def spec_of(look: Observed) -> tuple[Role | str | None, object]:
        return look.role, ((look.vrg or {}).get("metadata") or {}).get("generation")

    pairs = zip(looks, stamped, strict=True)
    return [before.cluster for before, after in pairs if spec_of(before) != spec_of(after)]


def in_words(looks: list[Observed]) -> dict[str, str]:
    """By cluster: what was seen there, in one line for people."""
    return {look.cluster: _words(look) for look in looks}


def _words(look: Observed) -> str:
    if not look.reachable:
        return f"does not answer ({look.error})"
    if look.vrg is None:
        return "no VRG"
    state = (look.vrg.get("status") or {}).get("state") or "no state"
    mine = own_epoch(look)
    epoch = f"epoch {mine.number}" if mine else "given back to a hub" if is_released(look.vrg) else "no epoch"
    volumes, pods = counted(len(look.volumes), "volume"), look.pods
    return f"{look.role}, {state}, {epoch}, {volumes}, pods {pods.ready} of {pods.total} Ready"


def request_of(given: AdoptRequest, looks: list[Observed]) -> ProtectRequest | None:
    """The DRPC that would have made these VRGs under the policy that a person named; None without any VRG.

    The VRGs keep the UID that they carry, so that nothing about them changes (drpc.md 3.10).
    """
    having = [look for look in looks if look.reachable and look.vrg is not None]
    if not having:
        return None
    home = next((look for look in having if look.role == "primary"), having[0])
    vrg: dict[str, Any] = home.vrg or {}
    found = vrg.get("spec") or {}
    spec = {
        "placementRef": {"kind": "Placement", "name": given.placement or given.app.name},
        "drPolicyRef": {"name": given.policy},
        "preferredCluster": home.cluster,
        "pvcSelector": found.get("pvcSelector") or {},
    }
    # What is not carried has to be there to be refused: the first write of the VRG would take it away.
    spec |= {key: found[key] for key in ("kubeObjectProtection", "protectedNamespaces") if key in found}
    annotations = (vrg.get("metadata") or {}).get("annotations") or {}
    return ProtectRequest(
        namespace=given.app.namespace,
        name=given.app.name,
        spec=spec,
        annotations={key: annotations[key] for key in names.USER_SWITCHES if key in annotations},
        uid=annotations.get(names.DRPC_UID, ""),
    )


def replicated_by_volsync(looks: list[Observed]) -> list[str]:
    """Names of the volumes that a hub protected with VolSync, which is not carried."""
    entries = [entry for look in looks for entry in ((look.vrg or {}).get("status") or {}).get("protectedPVCs") or []]
    return sorted({str(entry.get("name")) for entry in entries if entry.get("protectedByVolSync")})


def state_of(
    app: AppSpec, found: Inference, looks: list[Observed], mirror: MirrorSeen, epoch: Epoch, now: datetime
) -> AppState:
    """What the entity would remember. A proof of a good copy counts only when nothing was claimed after it (S2)."""
    state = mirror.state or {}
    observed: dict[str, Any] = state.get("observed") or {}
    stored = Epoch.model_validate(state["epoch"]) if state.get("epoch") else None
    is_newest = stored is not None and stored == found.epoch
    if any(look.vrg and own_epoch(look) is None for look in looks):
        is_newest = False  # a hub drove it since, and notes no epoch
    volumes = _volumes(looks, state, is_newest)
    issued = [each for each in (found.epoch, epoch) if each]
    action = _last_action(found, looks, epoch)
    return AppState(
        namespace=app.namespace,
        name=app.name,
        app=app,
        issued=issued,
        wanted={
            cluster: Wanted(role=Role.PRIMARY if cluster == found.serving else Role.SECONDARY, epoch=epoch)
            for cluster in app.cluster_names
        },
        decision=_decision(found, looks, mirror, epoch, now),
        volumes=volumes,
        known_empty=not volumes and bool(state.get("spec")) and not state.get("volumes"),
        protected=_TIMES.validate_python(observed.get("protected") or {})
        if is_newest and found.verdict is Verdict.ADOPT
        else {},
        last_good=_TIMES.validate_python(observed.get("last_good") or {}),
        action=action,
        history=[action] if action else [],
        interrupted=_how_to_go_on(app, found),
        debts=[Debt(cluster=cluster, wants="Secondary", since=now) for cluster in app.others(found.serving)],
    )


def _decision(found: Inference, looks: list[Observed], mirror: MirrorSeen, epoch: Epoch, now: datetime) -> Decision:
    """Where the application is held to serve; a promotion that is to be finished has not moved it yet."""
    if found.verdict is not Verdict.FINISH:
        return Decision(cluster=found.serving, epoch=epoch, decided_at=now)
    target = next((look for look in looks if look.cluster == found.serving), None)
    left = _annotation(target, names.PREVIOUS) if target else ""
    decided = mirror.decision.cluster if mirror.decision else None
    source = left or (decided if decided != found.serving else None) or None
    return Decision(cluster=source, epoch=epoch, decided_at=now)


def _volumes(looks: list[Observed], state: dict[str, Any], is_newest: bool) -> list[Volume]:
    """The volumes last known to be protected (S3): those of the stores, and where an action came after them also
    those of the VRGs, and those that are bound where it serves."""
    found = {(v.namespace, v.name): v for v in _VOLUMES.validate_python(state.get("volumes") or [])}
    if is_newest:
        return [found[key] for key in sorted(found)]
    for look in looks:
        try:
            told = _VOLUMES.validate_python(json.loads(_annotation(look, names.VOLUMES) or "[]"))
        except (ValueError, ValidationError):
            told = []  # the other sources say it
        bound = look.volumes if look.role == "primary" else []
        found = {(v.namespace, v.name): v for v in [*told, *bound]} | found
    return [found[key] for key in sorted(found)]


def _last_action(found: Inference, looks: list[Observed], epoch: Epoch) -> ActionRecord | None:
    """The action that brought the application where it serves, as the VRG there remembers it.

    It is of the adoption's epoch, so that the clean-up and the proof that follow are told as its own.
    """
    home = next((look for look in looks if look.cluster == found.serving), None)
    kind = ((home.vrg or {}).get("spec") or {}).get("action") if home else None
    known = {"Failover": ActionKind.FAILOVER, "Relocate": ActionKind.RELOCATE}
    if found.verdict is not Verdict.ADOPT:
        return None
    return ActionRecord(
        kind=known.get(kind or "", ActionKind.DEPLOY),
        workflow_id="",
        epoch=epoch.number,
        target=found.serving,
        outcome=Outcome.DONE,
        message="adopted",
    )


def _how_to_go_on(app: AppSpec, found: Inference) -> str:
    """What is true until the failover that an adoption asks for has begun: nothing is cleaned up, and it is not
    refused because the decision names its target already."""
    if found.verdict is Verdict.ADOPT:
        return ""
    return (
        f"it was adopted, and what was cut off has not been carried on yet ({found.why}). Go on: hubless failover "
        f"{app.name} -n {app.namespace} --to {found.serving} --accept-data-loss"
    )


def _annotation(look: Observed, name: str) -> str:
    return str((((look.vrg or {}).get("metadata") or {}).get("annotations") or {}).get(name, ""))
