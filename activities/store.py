"""Activities that touch stores only: claims, the advisory lock, the mirror, and what an operator could restore from."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Mapping
from datetime import UTC, datetime
from typing import TypeVar

from pydantic import ValidationError
from temporalio import activity

from activities import contracts
from activities.access.s3 import S3Store
from activities.beats import beat_seconds, beating
from activities.contracts import (
    AppendHistory,
    ClaimedEpoch,
    ClaimEpoch,
    LockRequest,
    MirrorSeen,
    MirrorState,
    ReadMirror,
    StoresQuery,
    StoresSeen,
)
from activities.errors import implements
from activities.mirror import LOOK_SECONDS, RENEW_SECONDS, STORE_SECONDS, Mirror
from ramen.app import AppRef, AppSpec, Decision, StoreReport, Volume, Witness
from ramen.errors import Invalid, StaleEpoch, StoreDenied, StoreUnreachable
from ramen.s3layout import DecisionDocument, Document, EpochClaim, HistoryDocument, StateDocument

log = logging.getLogger(__name__)

TOKEN_BYTES = 8
"""Random bytes of an epoch's token: two claims of one number must never meet (S1)."""

REMEMBERED_TOKENS = 10_000
"""Claims whose token this process keeps, the newest ones."""

KNOWN_SECONDS = 5.0
"""How long a store counts as it last answered, so that a thousand promotions at once ask it once."""

BEAT_SECONDS = 1.5
"""Shortest time between heartbeats of the lock's holder, through which it learns that the action has ended."""

Doc = TypeVar("Doc", bound=Document)


class StoreActivities:
    """All activities of the control queue that speak to stores."""

    def __init__(
        self,
        mirror: Mirror,
        operator: Mapping[str, S3Store],
        renew_seconds: float = RENEW_SECONDS,
        watched: Callable[[], Iterable[tuple[str, str]]] = tuple,
    ) -> None:
        """`operator` holds the dr-cluster operator's own buckets by profile and may change over time.

        `watched` answers namespace and name of every VRG that the watches of this worker see.
        """
        self._watched = watched
        self._mirror = mirror
        self._operator = operator
        self._renew_seconds = renew_seconds
        self._tokens: OrderedDict[str, str] = OrderedDict()
        self._silent: dict[str, tuple[bool, float]] = {}
        self._asking: dict[str, asyncio.Lock] = {}

    @implements(contracts.claim_epoch, beats=False)
    async def claim_epoch(self, request: ClaimEpoch) -> ClaimedEpoch:
        """See the contract.

        A retry finds the token of the first attempt in the stores. Where none answered it is kept in this process
        and, for another one, in the heartbeat: it cannot be computed from the request, because the two halves of a
        forked Temporal carry the same requests and must not end up with the same token (S1).
        """
        app, lock, mirror = request.app, request.lock, self._mirror.of(request.profiles)
        claim = EpochClaim(
            number=request.number,
            token=self._token(f"{app}/{request.number}/{request.request_id}"),
            action=request.action,
            request_id=request.request_id,
            holder=activity.info().workflow_id or "",
            claimed_at=datetime.now(UTC),
        )
        async with beating(claim.token):
            # Looked at beside the lock, since both are on the way to serving (D15); a claim that comes in between is
            # met by the conditional write.
            looking = asyncio.ensure_future(mirror.newest_claims(app.namespace, app.name, request.number))
            try:
                await mirror.acquire_lock(
                    app.namespace,
                    app.name,
                    lock.holder,
                    lock.epoch,
                    workflow_id=lock.workflow_id,
                    break_holder=lock.break_holder,
                )
                newest = await looking
            finally:
                looking.cancel()
            try:
                claimed = await mirror.claim_epoch(app.namespace, app.name, claim, newest=newest)
            except StaleEpoch:
                await mirror.release_lock(app.namespace, app.name, lock.holder, lock.epoch, lock.workflow_id)
                raise
        return ClaimedEpoch(epoch=claimed.epoch, stores=claimed.stored)

    @implements(contracts.hold_lock, beats=False)
    async def hold_lock(self, request: LockRequest) -> None:
        """See the contract; when only this worker ends, the lock stays for the attempt on another one."""
        app = request.app
        lock = (app.namespace, app.name, request.holder, request.epoch, request.workflow_id)
        run_id, takes_over, attempt = activity.info().workflow_run_id or "", True, activity.info().attempt
        # A second attempt does not know when the first one renewed last.
        is_taken = request.is_taken and attempt == 1
        due = time.monotonic() + self._renew_seconds if is_taken else 0.0
        pause = beat_seconds(BEAT_SECONDS)
        try:
            while True:
                if time.monotonic() >= due:
                    # Looked up each time: the stores are others after a rotation of their credentials.
                    await self._mirror.of(request.profiles).renew_lock(
                        *lock, run_id=run_id, takes_over=takes_over, attempt=attempt
                    )
                    takes_over = False
                    due = time.monotonic() + self._renew_seconds
                activity.heartbeat()
                await asyncio.sleep(min(pause, max(0.0, due - time.monotonic())))
        except asyncio.CancelledError:
            why = activity.cancellation_details()
            if why is None or not why.worker_shutdown:
                await self._mirror.of(request.profiles).release_lock(*lock, run_id=run_id, attempt=attempt)
            raise

    @implements(contracts.release_lock)
    async def release_lock(self, request: LockRequest) -> None:
        """See the contract."""
        mirror, app = self._mirror.of(request.profiles), request.app
        await mirror.release_lock(app.namespace, app.name, request.holder, request.epoch, request.workflow_id)

    @implements(contracts.read_stores)
    async def read_stores(self, request: StoresQuery) -> StoresSeen:
        """See the contract."""
        namespace, name = request.app.namespace, request.app.name
        mirror = self._mirror.of(request.profiles)
        reports, newest, witness = await asyncio.gather(
            self._restorable(namespace, name, request.profiles, request.enough),
            mirror.newest_epoch(namespace, name, LOOK_SECONDS),
            mirror.read_witness(namespace, name, request.witness_of) if request.witness_of else _nothing(),
        )
        now = time.monotonic()
        self._silent |= {report.profile: (not report.reachable, now) for report in reports}
        seen = witness.value if witness else None
        return StoresSeen(
            stores=reports,
            newest_epoch=newest.value,
            silent=sorted(newest.failed),
            witness=Witness(volumes=seen.volumes, seen_at=seen.seen_at) if seen else Witness(),
        )

    @implements(contracts.read_mirror)
    async def read_mirror(self, request: ReadMirror) -> MirrorSeen:
        """See the contract."""
        namespace, name = request.app.namespace, request.app.name
        mirror = self._mirror.of(request.profiles) if request.profiles else self._mirror
        state, decision, newest = await asyncio.gather(
            mirror.read_state(namespace, name),
            mirror.read_decision(namespace, name),
            mirror.newest_epoch(namespace, name),
        )
        # A store of which anything could not be read may hold the newer truth (D10).
        failed = newest.failed | state.failed | decision.failed
        silent = [StoreReport(profile=name, reachable=False, error=why) for name, why in sorted(failed.items())]
        answered = [profile for profile in newest.answered if profile not in failed]
        found = decision.value
        return MirrorSeen(
            state=state.value.model_dump(mode="json") if state.value else None,
            decision=Decision(
                cluster=found.cluster,
                previous=found.previous,
                retained=found.retained,
                epoch=found.epoch,
                decided_at=found.decided_at,
            )
            if found
            else None,
            newest_epoch=newest.value,
            stores=[*(StoreReport(profile=name, reachable=True) for name in answered), *silent],
        )

    @implements(contracts.list_mirrored)
    async def list_mirrored(self) -> list[AppRef]:
        """See the contract."""
        found = {*await self._mirror.applications(), *self._watched()}
        return [AppRef(namespace=namespace, name=name) for namespace, name in sorted(found)]

    @implements(contracts.mirror_state)
    async def mirror_state(self, request: MirrorState) -> list[str]:
        """See the contract; a profile counts as written when it has the state, and the decision if there is one."""
        app = request.app
        mirror = self._mirror.of(request.profiles or _profiles(app))
        given = {"spec": app.model_dump(mode="json"), "written_at": datetime.now(UTC), **request.document}
        state = _document(StateDocument, {**given, "epoch": request.epoch})
        written = [await mirror.write_state(app.namespace, app.name, state)]
        if request.decision is not None:
            decision = DecisionDocument(
                cluster=request.decision.cluster,
                previous=request.decision.previous,
                retained=request.decision.retained,
                epoch=request.decision.epoch or request.epoch,
                decided_at=request.decision.decided_at or state.written_at,
            )
            written.append(await mirror.write_decision(app.namespace, app.name, decision))
        for each in written:
            _report(str(app.ref), each.failed)
        return sorted(set.intersection(*(set(each.stored) for each in written)))

    @implements(contracts.append_history)
    async def append_history(self, request: AppendHistory) -> list[str]:
        """See the contract."""
        app = request.app
        document = _document(HistoryDocument, {**request.document, "epoch": request.epoch, "action": request.action})
        written = await self._mirror.of(request.profiles).append_history(app.namespace, app.name, document)
        _report(str(app), written.failed)
        return written.stored

    async def silent_profiles(self, profiles: Collection[str]) -> set[str]:
        """Those of the profiles whose store does not answer within a second; remembered for a few seconds."""
        answers = await asyncio.gather(*(self._is_silent(profile) for profile in profiles))
        return {profile for profile, silent in zip(profiles, answers, strict=True) if silent}

    async def _is_silent(self, profile: str) -> bool:
        async with self._asking.setdefault(profile, asyncio.Lock()):
            known = self._silent.get(profile)
            if known is not None and time.monotonic() - known[1] < KNOWN_SECONDS:
                return known[0]
            silent = not await self._answers(profile)
            self._silent[profile] = (silent, time.monotonic())
            return silent

    async def _answers(self, profile: str) -> bool:
        store = self._operator.get(profile)
        if store is None:
            return False
        try:
            async with asyncio.timeout(STORE_SECONDS):
                await store.head_bucket()
        except (StoreUnreachable, StoreDenied, TimeoutError):
            return False
        return True

    async def _restorable(
        self, namespace: str, name: str, profiles: list[str], enough: list[Volume] | None
    ) -> list[StoreReport]:
        async def read(profile: str) -> StoreReport:
            store = self._operator.get(profile)
            if store is None:
                return StoreReport(profile=profile, reachable=False, error="not configured on this worker")
            return (await self._mirror.restorable_volumes(namespace, name, {profile: store}))[0]

        asked = {profile: asyncio.ensure_future(read(profile)) for profile in dict.fromkeys(profiles)}
        waiting: set[asyncio.Future[StoreReport]] = set(asked.values())
        try:
            if waiting and enough is not None:
                _, waiting = await asyncio.wait(waiting, timeout=STORE_SECONDS)
            while waiting and not (enough is not None and _found(enough, asked.values())):
                _, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            return [
                each.result() if each.done() else StoreReport(profile=profile, reachable=False, error=_late(profile))
                for profile, each in asked.items()
            ]
        finally:
            for each in asked.values():
                each.cancel()

    def _token(self, claim: str) -> str:
        beaten = activity.info().heartbeat_details
        token = self._tokens.get(claim) or (str(beaten[0]) if beaten else secrets.token_hex(TOKEN_BYTES))
        self._tokens[claim] = token
        while len(self._tokens) > REMEMBERED_TOKENS:
            self._tokens.popitem(last=False)
        activity.heartbeat(token)
        return token


def _found(volumes: list[Volume], asked: Iterable[asyncio.Future[StoreReport]]) -> bool:
    """Whether a store has answered, and those that have hold all the volumes."""
    reports = [each.result() for each in asked if each.done()]
    held = {(volume.namespace, volume.name) for report in reports for volume in report.volumes}
    return any(report.reachable for report in reports) and held >= {(v.namespace, v.name) for v in volumes}


def _late(profile: str) -> str:
    return f"S3 profile {profile} did not answer within {STORE_SECONDS:g} s, and another store has all that is needed"


async def _nothing() -> None:
    """Stands where a read is not wanted."""


def _profiles(app: AppSpec) -> list[str]:
    return list(dict.fromkeys(cluster.s3_profile for cluster in app.clusters))


def _document(kind: type[Doc], fields: Mapping[str, object]) -> Doc:
    try:
        return kind.model_validate(fields)
    except ValidationError as err:
        first = err.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        raise Invalid(f"{kind.__name__} cannot be written: {field}: {first['msg']}.") from err


def _report(app: str, failed: Mapping[str, str]) -> None:
    for profile, why in failed.items():
        log.warning("the mirror of %s in S3 profile %s was not written: %s", app, profile, why)
