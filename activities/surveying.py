"""What is looked at before an application is protected: its DRPC with policy and clusters, and each cluster.

Everything that this release does not carry is refused here, by its name, before anything is written (D11).
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from typing import Any, TypeVar

from activities import contracts, looking
from activities.access.protocol import ClusterAccess, Object
from activities.access.s3 import S3Store
from activities.clusters import Clusters
from activities.contracts import PolicyCheck, ProtectRequest, Survey, SurveyResult
from activities.errors import implements
from ramen import names
from ramen.app import AppSpec, PolicyCluster
from ramen.conditions import TRUE, PolicyCondition, find
from ramen.config import NO_S3
from ramen.desired import label_query
from ramen.errors import ClusterUnreachable, GateClosed, HublessError, Invalid, KindMissing, Refused, ServerBusy
from ramen.gates import interval_seconds
from ramen.kinds import DRCLUSTER, DRPOLICY, STORAGE_CLASS, VOLUME_REPLICATION_CLASS, Kind
from ramen.objects import DRPC, APIObject, DRCluster, DRPolicy
from ramen.placement import Candidate, Choice, choose
from ramen.policies import findings, is_sync, warnings

INSTALL_KINDS = "Install it there: hubless crds | kubectl apply -f -"

LABEL_VALUE = re.compile(r"(?:[A-Za-z0-9](?:[A-Za-z0-9_.-]*[A-Za-z0-9])?)?")
"""What Kubernetes takes for the value of a label."""

NAME_LENGTH = 63
"""Characters of a label's value."""

STORE_SECONDS = 3.0
"""For one look at a store, while somebody waits for the answer to a request."""

SYNC_CLASSES = "Metro (sync) policies are not carried in this release; use a policy with a schedulingInterval."

Model = TypeVar("Model", bound=APIObject)


class SurveyActivities:
    """Looks before the first write."""

    def __init__(self, clusters: Clusters, stores: Mapping[str, S3Store] | None = None) -> None:
        """`stores` holds the dr-cluster operator's own buckets by S3 profile, for the choice of a cluster."""
        self._clusters = clusters
        self._stores: Mapping[str, S3Store] = stores if stores is not None else {}

    @implements(contracts.resolve_application)
    async def resolve_application(self, request: ProtectRequest) -> AppSpec:
        """See the contract; reads on the worker's own cluster, or on the first other one that answers."""
        drpc = _drpc(request)
        _refuse_unsupported(drpc)
        policy, clusters, read_on = await self._policy(drpc.spec.dr_policy_ref.name)
        label, spec = drpc.label, drpc.spec
        _refuse_unknown(spec.preferred_cluster, policy)
        _refuse_invalid(policy, read_on)
        _refuse_metro(policy)
        for cluster in clusters:
            if cluster.spec.s3_profile_name in ("", NO_S3):
                raise Refused(
                    f"DRCluster {cluster.metadata.name} on {read_on} names no S3 profile, from which a failover could "
                    f"restore volumes. Set its spec.s3ProfileName."
                )
        selector = _selector(label, request.spec)
        interval = policy.spec
        home = Choice(spec.preferred_cluster, "")
        if not home.cluster:
            seen = await asyncio.gather(*(self._candidate(request, policy, each, selector) for each in clusters))
            home = choose(request.name, policy.metadata.name, seen)
        return AppSpec(
            namespace=request.namespace,
            name=request.name,
            uid=request.uid,
            policy=policy.metadata.name,
            clusters=[
                PolicyCluster(
                    name=cluster.metadata.name, s3_profile=cluster.spec.s3_profile_name, region=cluster.spec.region
                )
                for cluster in clusters
            ],
            preferred_cluster=home.cluster,
            placement_reason=home.reason,
            pvc_selector=selector,
            placement=spec.placement_ref.name,
            scheduling_interval=interval.scheduling_interval,
            replication_class_selector=interval.replication_class_selector.model_dump(mode="json"),
            volume_snapshot_class_selector=interval.volume_snapshot_class_selector.model_dump(mode="json"),
            volume_group_snapshot_class_selector=(
                interval.volume_group_snapshot_class_selector.model_dump(mode="json")
                if interval.volume_group_snapshot_class_selector
                else {}
            ),
            peer_classes=[entry.model_dump(mode="json") for entry in _peer_classes(policy)],
            switches={key: value for key, value in request.annotations.items() if key in names.USER_SWITCHES},
        )

    @implements(contracts.read_peer_classes)
    async def read_peer_classes(self, policy: str) -> list[dict[str, Any]]:
        """See the contract; reads where `resolve_application` does."""
        return [entry.model_dump(mode="json") for entry in _peer_classes((await self._policy(policy))[0])]

    @implements(contracts.survey_cluster)
    async def survey_cluster(self, request: Survey) -> SurveyResult:
        """See the contract; raises KindMissing, naming the remedy, where the VRG's own kind is not installed."""
        app, cluster = request.app, request.cluster
        access = self._clusters.access(cluster)
        try:
            seen = await looking.look(access, app.ref, cluster)
        except KindMissing as err:
            raise KindMissing(f"{err}. Ramen's dr-cluster operator has to run on {cluster}. {INSTALL_KINDS}") from err
        missing: list[str] = []
        claims, storage_classes, replication_classes = await asyncio.gather(
            looking.select_pvcs(access, app.namespace, app.pvc_selector),
            _list(access, STORAGE_CLASS, "", missing),
            _list(access, VOLUME_REPLICATION_CLASS, label_query(app.replication_class_selector), missing),
        )
        unsupported = _foreign_owners(app, cluster, claims)
        unsupported += _unreplicated(app, cluster, claims, storage_classes, replication_classes)
        return SurveyResult(observed=seen, unsupported=unsupported, missing_kinds=missing)

    @implements(contracts.check_policies)
    async def check_policies(self) -> list[PolicyCheck]:
        """See the contract."""
        return list(await asyncio.gather(*(self._check(cluster) for cluster in self._clusters.names())))

    async def _check(self, cluster: str) -> PolicyCheck:
        try:
            access = self._clusters.access(cluster)
            (policies, _), (drclusters, _) = await asyncio.gather(access.list(DRPOLICY), access.list(DRCLUSTER))
            objects = [DRPolicy.of(obj) for obj in policies], [DRCluster.of(obj) for obj in drclusters]
        except HublessError as err:
            return PolicyCheck(cluster=cluster, error=str(err))
        everything: list[DRPolicy | DRCluster] = [*objects[0], *objects[1]]
        return PolicyCheck(
            cluster=cluster,
            valid={policy.metadata.name: _peer_words(policy) for policy in objects[0] if not findings(policy)},
            problems=[line for obj in everything for line in findings(obj)],
            warnings=[line for obj in everything for line in warnings(obj)],
        )

    async def _candidate(
        self, request: ProtectRequest, policy: DRPolicy, drcluster: DRCluster, selector: dict[str, Any]
    ) -> Candidate:
        """What matters of one cluster for the choice where an application begins."""
        name = drcluster.metadata.name
        try:
            access = self._clusters.access(name)
            (claims, (storage, _)), store = await asyncio.gather(
                asyncio.gather(looking.select_pvcs(access, request.namespace, selector), access.list(STORAGE_CLASS)),
                self._store_problem(drcluster.spec.s3_profile_name),
            )
        except (GateClosed, ClusterUnreachable, ServerBusy) as err:
            return Candidate(name, silent=str(err))
        there = {str(obj["metadata"]["name"]) for obj in storage}
        wanted = {peer.storage_class_name for peer in _peer_classes(policy)}
        return Candidate(name, volumes=len(claims), lacks=tuple(sorted(wanted - there)), store=store)

    async def _store_problem(self, profile: str) -> str:
        """Why this worker cannot use a cluster's store, in one clause; empty when it can."""
        store = self._stores.get(profile)
        if store is None:
            return f"S3 profile {profile} is not known here"
        try:
            async with asyncio.timeout(STORE_SECONDS):
                await store.head_bucket()
        except HublessError as err:
            return str(err)
        except TimeoutError:
            return f"S3 profile {profile} did not answer in {STORE_SECONDS:g} s"
        return ""

    async def _policy(self, name: str) -> tuple[DRPolicy, list[DRCluster], str]:
        """The policy and its DRClusters in the policy's order, and the cluster that they were read on."""
        if not name:
            raise Refused("drPolicyRef names no policy. Set spec.drPolicyRef.name.")
        silent: list[str] = []
        for where in self._clusters.names():
            try:
                access = self._clusters.access(where)
                policy = await _get(access, DRPOLICY, DRPolicy, name)
                found = [await _get(access, DRCLUSTER, DRCluster, each) for each in policy.spec.dr_clusters]
            except (GateClosed, ClusterUnreachable, ServerBusy) as err:
                silent.append(str(err))
                continue
            return policy, found, where
        raise ClusterUnreachable(f"policy {name} cannot be read: {'; '.join(silent) or 'no cluster is registered'}.")


async def _get(access: ClusterAccess, kind: Kind, model: type[Model], name: str) -> Model:
    try:
        found = await access.read(kind, name)
    except KindMissing as err:
        raise KindMissing(f"{kind.kind} is not installed on {access.name}. {INSTALL_KINDS}") from err
    if found is None:
        raise Refused(f"{kind.kind} {name} is missing on {access.name}. Create it, or name another one.")
    return model.of(found)


async def _list(access: ClusterAccess, kind: Kind, labels: str, missing: list[str]) -> list[Object]:
    try:
        return (await access.list(kind, labels=labels or None))[0]
    except KindMissing:
        missing.append(kind.kind)
        return []


def _drpc(request: ProtectRequest) -> DRPC:
    metadata = {"name": request.name, "namespace": request.namespace, "annotations": request.annotations}
    try:
        return DRPC.of({"metadata": metadata, "spec": request.spec})
    except Invalid as err:
        raise Refused(f"{request.namespace}/{request.name}: {err}") from err


def _refuse_unsupported(drpc: DRPC) -> None:
    spec, label, switches = drpc.spec, drpc.label, drpc.metadata.annotations
    if len(drpc.metadata.name) > NAME_LENGTH:
        raise Refused(
            f"{label}: a name of more than {NAME_LENGTH} characters is no label, by which the operator knows its "
            "volumes (vrg.md 2.2). Use a shorter one."
        )
    if not spec.placement_ref.name:
        raise Refused(f"{label}: placementRef is missing. Set spec.placementRef.name; the Placement need not exist.")
    if spec.placement_ref.namespace not in ("", drpc.metadata.namespace):
        raise Refused(f"{label}: placementRef names another namespace ({spec.placement_ref.namespace}). Leave it out.")
    carried = "is not carried in this release. Remove it"
    if spec.kube_object_protection is not None:
        raise Refused(f"{label}: kubeObjectProtection {carried}; GitOps brings the Kubernetes objects.")
    if spec.protected_namespaces:
        raise Refused(f"{label}: protectedNamespaces {carried}; protect each namespace by a DRPC of its own.")
    if spec.dry_run:
        raise Refused(f"{label}: dryRun {carried}.")
    for switch, why in (
        ("is-cg-enabled", "consistency groups are"),
        ("use-volsync-for-pvc-protection", "VolSync is"),
    ):
        if switches.get(names.DRPC_PREFIX + switch) == "true":
            raise Refused(
                f"{label}: annotation {names.DRPC_PREFIX}{switch} is true, but {why} not carried in this release. "
                "Remove it."
            )


def _refuse_unknown(cluster: str, policy: DRPolicy) -> None:
    """A cluster that was named has to be one of the policy's; none was named when it is empty."""
    if cluster and cluster not in policy.spec.dr_clusters:
        known = ", ".join(policy.spec.dr_clusters)
        raise Refused(f"{cluster} is not a cluster of policy {policy.metadata.name} ({known}).")


def _refuse_invalid(policy: DRPolicy, read_on: str) -> None:
    """Only a policy that is validated and stays protects anything (drpc.md 1.2)."""
    name = policy.metadata.name
    if policy.is_being_deleted:
        raise Refused(f"policy {name} is being deleted. Use another one.")
    validated = find(policy.status.conditions, PolicyCondition.VALIDATED)
    if validated is None:
        raise Refused(
            f"policy {name} is not validated yet on {read_on}: a worker does that within seconds of its creation. Ask "
            f"again; if it stays so: hubless check"
        )
    if validated.status != TRUE:
        raise Refused(f"policy {name} is not valid: {validated.message} ({validated.reason}).")


def _refuse_metro(policy: DRPolicy) -> None:
    if is_sync(policy):
        raise Refused(f"policy {policy.metadata.name} is sync. {SYNC_CLASSES}")
    if not interval_seconds(policy.spec.scheduling_interval):
        raise Refused(
            f"policy {policy.metadata.name} has no schedulingInterval, so its storage keeps time itself, which is not "
            "carried in this release. Use a policy with an interval such as 5m."
        )


def _peer_words(policy: DRPolicy) -> str:
    return ", ".join(peer.storage_class_name for peer in _peer_classes(policy)) or "none"


def _peer_classes(policy: DRPolicy) -> list[Any]:
    return list(policy.status.async_.peer_classes) if policy.status.async_ else []


def _selector(label: str, spec: dict[str, Any]) -> dict[str, Any]:
    selector = spec.get("pvcSelector")
    if not isinstance(selector, dict):
        raise Refused(f"{label}: pvcSelector is missing. Set spec.pvcSelector to a label selector.")
    try:
        label_query(selector)
    except (Invalid, AttributeError, TypeError) as err:
        raise Refused(f"{label}: spec.pvcSelector is no label selector: {err}") from err
    wrong = [f"{key}: {value}" for key, value in (selector.get("matchLabels") or {}).items() if not _is_label(value)]
    if wrong:
        raise Refused(
            f"{label}: pvcSelector selects nothing: {', '.join(wrong)} is no value of a label. Give each label its own "
            "entry in matchLabels."
        )
    return selector


def _is_label(value: object) -> bool:
    return isinstance(value, str) and len(value) <= NAME_LENGTH and bool(LABEL_VALUE.fullmatch(value))


def _foreign_owners(app: AppSpec, cluster: str, claims: list[Object]) -> list[str]:
    """PVCs that the operator has given to another VRG; it protects each only once (vrg.md 2.2)."""
    found = []
    for claim in claims:
        labels = claim["metadata"].get("labels") or {}
        owner = labels.get(names.OWNER_NAMESPACE, app.namespace), labels.get(names.OWNER_NAME, app.name)
        if owner != (app.namespace, app.name):
            found.append(f"PVC {claim['metadata']['name']} on {cluster} belongs to VRG {'/'.join(owner)} already")
    return found


def _unreplicated(
    app: AppSpec,
    cluster: str,
    claims: list[Object],
    storage_classes: list[Object],
    replication_classes: list[Object],
) -> list[str]:
    """PVCs that storage would not replicate at the policy's interval, or only with a maintenance mode (vrg.md 1.6)."""
    provisioners = {obj["metadata"]["name"]: str(obj.get("provisioner", "")) for obj in storage_classes}
    found: list[str] = []
    for claim in claims:
        what = f"PVC {claim['metadata']['name']} on {cluster}"
        storage_class = str((claim.get("spec") or {}).get("storageClassName") or "")
        provisioner = provisioners.get(storage_class)
        if provisioner is None:
            found.append(f"{what} has StorageClass {storage_class or '(none)'}, which does not exist there")
            continue
        if app.peer_classes and (why := _no_peer(app, storage_class)):
            found.append(f"{what} {why}")
            continue
        fitting = [obj for obj in replication_classes if _fits(obj, provisioner, app.scheduling_interval)]
        if not fitting:
            found.append(
                f"{what} would need VolSync: no VolumeReplicationClass of {provisioner} with schedulingInterval "
                f"{app.scheduling_interval}"
            )
        for obj in fitting:
            if (obj["metadata"].get("labels") or {}).get(names.MAINTENANCE_MODES):
                found.append(
                    f"{what} needs a maintenance mode at a failover: VolumeReplicationClass {obj['metadata']['name']}"
                )
    return found


def _no_peer(app: AppSpec, storage_class: str) -> str:
    """Why the policy's peer classes do not replicate a StorageClass; the operator would refuse it as well."""
    peers = [peer for peer in app.peer_classes if peer.get("storageClassName") == storage_class]
    if not peers:
        known = ", ".join(sorted({str(peer.get("storageClassName")) for peer in app.peer_classes}))
        return f"has StorageClass {storage_class}, which is no peer class of policy {app.policy} ({known})"
    if any(peer.get("offloaded") for peer in peers):
        return f"has StorageClass {storage_class}, whose replication is offloaded to the storage"
    if not any(peer.get("replicationID") for peer in peers):
        return f"would need VolSync: the peer class of StorageClass {storage_class} has no replicationID"
    return ""


def _fits(replication_class: Object, provisioner: str, interval: str) -> bool:
    spec = replication_class.get("spec") or {}
    return (
        spec.get("provisioner") == provisioner and (spec.get("parameters") or {}).get("schedulingInterval") == interval
    )
