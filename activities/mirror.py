"""The mirror in S3: claims of epochs, the advisory lock, and copies of what an entity knows (design 8, D8, S13).

Every operation asks each store and goes on with those that answer in time. A silent store is reported, never waited
for and never raised: only facts that were read from a store can refuse anything. Reads and plain writes go to all
stores at once. Claims and locks go through the stores in the order of their names, so that of two racers one is
first everywhere; in parallel each could win one store and both would have to give up.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Generic, TypeVar

from activities.access.s3 import S3Store
from ramen import names
from ramen.app import StoreReport, Volume
from ramen.epoch import Epoch
from ramen.errors import Invalid, LockHeld, LockLost, PreconditionFailed, StaleEpoch, StoreDenied, StoreUnreachable
from ramen.s3layout import (
    ClusterStatusDocument,
    DecisionDocument,
    Document,
    EpochClaim,
    HistoryDocument,
    LockDocument,
    StateDocument,
    WitnessDocument,
    newest_claim_key,
    protected_volumes,
)

LOCK_TTL_SECONDS = 30.0
"""A lock that was not renewed for so long has lost its holder (S13)."""

RENEW_SECONDS = 15.0
"""How often a holder renews: twice within one TTL."""

STORE_SECONDS = 1.0
"""All the time that stores get on the way of an action (S13)."""

LOOK_SECONDS = STORE_SECONDS / 2
"""A store that does not answer a first look in half of that time gets no more of it: the claim passes it over."""

BUSY_SECONDS = 8.0
"""Longest wait for a store that answers others meanwhile, as when a hundred applications fail over at once; an
activity of the stores has ten seconds."""

READ_SECONDS = 5.0
"""Time of a store to list and read an application's volumes, which a promotion needs (S9)."""

ALL_SECONDS = 60.0
"""Longest look at everything that a store holds, for people; a store that is silent is known by its first request."""

UNREADABLE = "unreadable"
"""Name of the holder of a lock whose document cannot be read: unknown is never absent (D10)."""

WRITE_TRIES = 3
"""Rounds of read and guarded write; another writer of the same key is rare, three in a row are a fault."""

Value = TypeVar("Value")
Doc = TypeVar("Doc", bound=Document)
Stamped = TypeVar("Stamped", StateDocument, DecisionDocument)
Versioned = tuple[Doc | None, str]
"""A document with its ETag; no document where the stored bytes cannot be read."""


@dataclass
class Answers(Generic[Value]):
    """What each store answered, by profile name, and one line for each that did not."""

    values: dict[str, Value] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class MirrorWrite:
    """Profiles that have the write, and one line for each that has not."""

    stored: list[str]
    failed: dict[str, str]


@dataclass(frozen=True)
class ClaimResult(MirrorWrite):
    """The epoch that is claimed now; nothing stored means that it is claimed on the clusters only."""

    epoch: Epoch


@dataclass(frozen=True)
class LockResult(MirrorWrite):
    """Profiles that hold the lock; none is no reason to stop, since the lock is advisory."""


@dataclass(frozen=True)
class Found(Generic[Value]):
    """The newest value in any store, where it was, who answered, and one line for each store that did not."""

    value: Value | None
    store: str | None
    answered: list[str]
    failed: dict[str, str]


class Mirror:
    """The coordination buckets of several S3 profiles, seen as one.

    Keep one instance per process: it remembers since when a foreign lock stands still. `clock` is monotonic and in
    seconds, `now` the time that is written for people.
    """

    def __init__(
        self,
        stores: Mapping[str, S3Store],
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._stores = stores
        self._absent: dict[str, str] = {}
        self._clock = clock
        self._now = now
        self._standing: dict[tuple[str, str], tuple[str, float]] = {}
        """By store and lock key: the last ETag of a foreign lock and when it was first seen."""

    @property
    def stores(self) -> Mapping[str, S3Store]:
        """The buckets by profile."""
        return self._stores

    def of(self, profiles: Iterable[str]) -> Mirror:
        """The same mirror limited to an application's profiles; one that is not configured counts as not answering."""
        wanted = list(profiles)
        part = Mirror({name: self._stores[name] for name in wanted if name in self._stores}, self._clock, self._now)
        part._absent = {
            name: f"S3 profile {name} is not configured on this worker" for name in wanted if name not in self._stores
        }
        part._standing = self._standing
        return part

    # --- Epochs (S1) -------------------------------------------------------------------------------------------------

    async def newest_claims(
        self, namespace: str, name: str, number: int, seconds: float = LOOK_SECONDS
    ) -> Answers[tuple[EpochClaim, str] | None]:
        """The newest claim of each store that answers, with its ETag, where it is of `number` or higher; what
        `claim_epoch` looks at first."""
        return await self._each(lambda store: self._newest_claim(store, namespace, name, number), seconds)

    async def claim_epoch(
        self,
        namespace: str,
        name: str,
        claim: EpochClaim,
        seconds: float = STORE_SECONDS,
        newest: Answers[tuple[EpochClaim, str] | None] | None = None,
    ) -> ClaimResult:
        """Claims `claim.number` in every store that answers, in at most `seconds`; `newest` is a look made before.

        A retry with the same `request_id` gets the token that is already there. Raises `StaleEpoch`, naming who
        claimed, when a store holds a higher number, or this number for another request.
        """
        deadline = _deadline(seconds)
        what = f"{namespace}/{name}"
        newest = newest or await self.newest_claims(namespace, name, claim.number, seconds / 2)
        earlier: dict[str, tuple[EpochClaim, str]] = {}
        for profile, found in sorted(newest.values.items()):
            if found and found[0].number >= claim.number:
                _require_same_request(what, found[0], claim, profile)
                earlier[profile] = found
        decided = next((found[0] for found in earlier.values()), claim)
        key = names.epoch_key(namespace, name, claim.number)
        stored: list[str] = []

        async def put(store: S3Store) -> None:
            nonlocal decided
            found = earlier.get(store.name)
            if found is None:
                try:
                    await store.put(key, decided.encode(), if_none_match=True)
                    return
                except PreconditionFailed:
                    found = await self._claim(store, key)
                    if found is None:
                        raise
                _require_same_request(what, found[0], claim, store.name)
                if not stored:
                    decided = found[0]
            if found[0].token != decided.token:
                await store.put(key, decided.encode(), if_match=found[1])

        await self._in_turn(newest, put, deadline, stored)
        return ClaimResult(stored, newest.failed, decided.epoch)

    async def newest_epoch(self, namespace: str, name: str, seconds: float = STORE_SECONDS) -> Found[Epoch]:
        """The highest epoch that is claimed in any store that answers; it outlives an unprotect (S7)."""
        answers = await self._each(lambda store: self._newest_claim(store, namespace, name), seconds)
        found = {profile: value[0].epoch for profile, value in answers.values.items() if value}
        # Of equal numbers the first name counts, as it does for a claim.
        best = max(sorted(found), key=lambda profile: found[profile].number, default=None)
        return Found(found[best] if best else None, best, sorted(answers.values), answers.failed)

    async def _newest_claim(
        self, store: S3Store, namespace: str, name: str, least: int = 0
    ) -> tuple[EpochClaim, str] | None:
        key = newest_claim_key(namespace, name, await store.list(names.epoch_prefix(namespace, name)))
        return await self._claim(store, key) if key and key >= names.epoch_key(namespace, name, least) else None

    @staticmethod
    async def _claim(store: S3Store, key: str) -> tuple[EpochClaim, str] | None:
        found = await store.get_with_etag(key)
        return (EpochClaim.decode(found[0], key), found[1]) if found else None

    # --- Lock (S13) --------------------------------------------------------------------------------------------------

    async def acquire_lock(
        self,
        namespace: str,
        name: str,
        holder: str,
        epoch: Epoch,
        workflow_id: str = "",
        break_holder: str = "",
        seconds: float = STORE_SECONDS,
    ) -> LockResult:
        """Takes the lock in every store that answers, in at most `seconds`.

        A lock of the same holder is taken over, so is one of `break_holder`, and one that stood still for a TTL on
        this process's monotonic clock. Raises `LockHeld`, naming holder, store and since when, for any other, and for
        a document that cannot be read, whose holder is `UNREADABLE`.
        """
        deadline = _deadline(seconds)
        what, key = f"{namespace}/{name}", names.lock_key(namespace, name)
        locks = await self._each(lambda store: self._read(store, key, LockDocument), seconds / 2)
        refusals = []
        for profile, found in sorted(locks.values.items()):
            if found is None or (found[0] and found[0].is_of(holder, epoch)):
                self._standing.pop((profile, key), None)
                continue
            theirs = found[0].holder if found[0] else UNREADABLE
            if not self._stands_still(profile, key, found[1]) and theirs != break_holder:
                refusals.append(_held(what, found[0], profile))
        if refusals:
            raise refusals[0]
        now = self._now()
        mine = LockDocument(
            holder=holder,
            workflow_id=workflow_id,
            epoch=epoch,
            acquired=now,
            expires=now + timedelta(seconds=LOCK_TTL_SECONDS),
        )
        stored: list[str] = []

        async def put(store: S3Store) -> None:
            found = locks.values[store.name]
            try:
                await self._put(store, key, mine, found)
            except PreconditionFailed:
                other = await self._read(store, key, LockDocument)
                if other is None:
                    raise
                if other[0] is None or not other[0].is_of(holder, epoch):
                    raise _held(what, other[0], store.name) from None
            self._standing.pop((store.name, key), None)

        try:
            await self._in_turn(locks, put, deadline, stored)
        except LockHeld:
            await self.of(stored).release_lock(namespace, name, holder, epoch, workflow_id)
            raise
        return LockResult(stored, locks.failed)

    async def renew_lock(
        self,
        namespace: str,
        name: str,
        holder: str,
        epoch: Epoch,
        workflow_id: str = "",
        run_id: str = "",
        takes_over: bool = False,
        attempt: int = 1,
        seconds: float = STORE_SECONDS,
    ) -> LockResult:
        """Renews the lock where this action has it, and takes it where a store came back without it.

        The lock of another action of ours in the same epoch is taken with `takes_over`, which an action does once, at
        its beginning. Later it is left alone: the other action came after this one, which is about to end. One that
        stands still for a TTL belongs to an action that never began, and is taken all the same.
        Raises `LockLost` when another holder, or a later action of ours, has it in any store that answers, or when a
        document is there that cannot be read.
        """
        key, now = names.lock_key(namespace, name), self._now()
        expires = now + timedelta(seconds=LOCK_TTL_SECONDS)
        action: dict[str, Any] = {"workflow_id": workflow_id, "run_id": run_id, "epoch": epoch}

        async def renew(store: S3Store) -> str:
            for _ in range(WRITE_TRIES):
                found = await self._read(store, key, LockDocument)
                lock = found[0] if found else None
                if found and lock is None:
                    return UNREADABLE
                if lock and not lock.is_of(holder, epoch):
                    return f"{lock.holder} (epoch {lock.epoch.number}, since {_clock_time(lock.acquired)})"
                is_anothers = lock is not None and not takes_over and not lock.is_of_action(workflow_id, run_id)
                if found and is_anothers and not self._stands_still(store.name, key, found[1]):
                    return ""
                if lock:
                    newest = max(attempt, lock.attempt if lock.is_of_action(workflow_id, run_id) else 1)
                    renewed = {"expires": expires, "renewals": lock.renewals + 1, "attempt": newest}
                    mine = lock.model_copy(update={**action, **renewed})
                else:
                    mine = LockDocument(holder=holder, acquired=now, expires=expires, attempt=attempt, **action)
                try:
                    await self._put(store, key, mine, found)
                    self._standing.pop((store.name, key), None)
                    return ""
                except PreconditionFailed:
                    continue
            raise StoreUnreachable(f"S3 profile {store.name}: the lock changes faster than it can be renewed")

        answers = await self._each(renew, seconds)
        for profile, other in sorted(answers.values.items()):
            if other:
                raise LockLost(
                    f"the lock of {namespace}/{name} in S3 profile {profile} is now held by {other}; this action stops"
                )
        return LockResult(sorted(answers.values), answers.failed)

    async def release_lock(
        self,
        namespace: str,
        name: str,
        holder: str,
        epoch: Epoch,
        workflow_id: str = "",
        run_id: str = "",
        attempt: int | None = None,
        seconds: float = STORE_SECONDS,
    ) -> MirrorWrite:
        """Deletes the lock where this action has it; any other's stays, also that of our next one in the same epoch.

        With `attempt`, so does one that a later attempt of the same activity renews.
        """
        key = names.lock_key(namespace, name)

        async def release(store: S3Store) -> None:
            found = await self._read(store, key, LockDocument)
            lock = found[0] if found else None
            if not (found and lock and lock.is_of(holder, epoch) and lock.is_of_action(workflow_id, run_id)):
                return
            if attempt is None or lock.attempt <= attempt:
                try:
                    await store.delete(key, if_match=found[1])
                except PreconditionFailed:
                    return  # taken over between the two requests: no longer ours

        return _written(await self._each(release, seconds))

    def _stands_still(self, profile: str, key: str, etag: str) -> bool:
        seen = self._standing.get((profile, key))
        if seen is None or seen[0] != etag:
            self._standing[profile, key] = (etag, self._clock())
            return False
        return self._clock() - seen[1] >= LOCK_TTL_SECONDS

    # --- State, decision, witness, history, clusters, volumes --------------------------------------------------------

    async def write_state(
        self, namespace: str, name: str, document: StateDocument, seconds: float = STORE_SECONDS
    ) -> MirrorWrite:
        """Writes the state to every store that answers and holds nothing newer."""
        return await self._write_newer(names.state_key(namespace, name), document, seconds)

    async def write_decision(
        self, namespace: str, name: str, document: DecisionDocument, seconds: float = STORE_SECONDS
    ) -> MirrorWrite:
        """Writes the decision to every store that answers and holds nothing newer."""
        return await self._write_newer(names.decision_key(namespace, name), document, seconds)

    async def read_state(self, namespace: str, name: str, seconds: float = STORE_SECONDS) -> Found[StateDocument]:
        """The newest state in any store, by epoch and then by time."""
        return await self._read_newest(names.state_key(namespace, name), StateDocument, seconds)

    async def read_decision(self, namespace: str, name: str, seconds: float = STORE_SECONDS) -> Found[DecisionDocument]:
        """The newest decision in any store, by epoch and then by time."""
        return await self._read_newest(names.decision_key(namespace, name), DecisionDocument, seconds)

    async def write_witness(
        self, namespace: str, name: str, document: WitnessDocument, seconds: float = STORE_SECONDS
    ) -> MirrorWrite:
        """Adds the volumes to those already witnessed at that epoch, in every store that answers (S4)."""
        key = names.witness_key(namespace, name, document.epoch.number)

        def merge(stored: WitnessDocument) -> WitnessDocument | str:
            if stored.epoch != document.epoch:
                return f"holds the witness of another action of epoch {document.epoch.number}"
            return _merged([stored, document])

        return await self._write(key, document, merge, seconds)

    async def read_witness(
        self, namespace: str, name: str, epoch: Epoch, seconds: float = STORE_SECONDS
    ) -> Found[WitnessDocument]:
        """All that any store knows of one epoch's witness."""
        key = names.witness_key(namespace, name, epoch.number)

        async def read(store: S3Store) -> WitnessDocument | None:
            found = await store.get(key)
            return WitnessDocument.decode(found, key) if found else None

        answers = await self._each(read, seconds)
        same = {profile: value for profile, value in sorted(answers.values.items()) if value and value.epoch == epoch}
        document = _merged(list(same.values())) if same else None
        return Found(document, next(iter(same), None), sorted(answers.values), answers.failed)

    async def append_history(
        self, namespace: str, name: str, document: HistoryDocument, seconds: float = STORE_SECONDS
    ) -> MirrorWrite:
        """Writes the record of one finished action; writing it again replaces it."""
        key = names.history_key(namespace, name, document.epoch.number, document.action)
        return _written(await self._each(lambda store: store.put(key, document.encode()), seconds))

    async def write_cluster_status(
        self, document: ClusterStatusDocument, seconds: float = STORE_SECONDS
    ) -> MirrorWrite:
        """Writes what a worker last knew of a cluster."""
        key = names.cluster_status_key(document.cluster)
        return _written(await self._each(lambda store: store.put(key, document.encode()), seconds))

    async def documents(
        self,
        prefix: str,
        choose: Callable[[list[str]], Iterable[str]] = lambda keys: keys,
        seconds: float = ALL_SECONDS,
    ) -> Answers[dict[str, bytes]]:
        """As they are stored: all documents below `prefix`, or those that `choose` picks among the keys there."""

        async def read(store: S3Store) -> dict[str, bytes]:
            keys = list(choose(await store.list(prefix)))
            bodies = await asyncio.gather(*map(store.get, keys))
            return {key: body for key, body in zip(keys, bodies, strict=True) if body is not None}

        return await self._each(read, seconds)

    async def applications(self, seconds: float = READ_SECONDS) -> set[tuple[str, str]]:
        """Namespace and name of every application with a state in any store that answers."""
        answers = await self._each(lambda store: store.list(names.MIRROR_PREFIX), seconds)
        found = (names.split_mirror_key(key) for keys in answers.values.values() for key in keys)
        return {each[:2] for each in found if each is not None and each[2] == "state"}

    async def delete_application(self, namespace: str, name: str, seconds: float = READ_SECONDS) -> MirrorWrite:
        """Deletes all of an application but its newest claim, the tombstone (S7), and the lock, which its holder
        gives back itself."""

        async def delete(store: S3Store) -> None:
            keys = await store.list(names.mirror_prefix(namespace, name))
            kept = {newest_claim_key(namespace, name, keys), names.lock_key(namespace, name)}
            await asyncio.gather(*(store.delete(key) for key in keys if key not in kept))

        return _written(await self._each(delete, seconds))

    @staticmethod
    async def restorable_volumes(
        namespace: str, name: str, operator_stores: Mapping[str, S3Store], seconds: float = READ_SECONDS
    ) -> list[StoreReport]:
        """What each operator bucket could restore of a VRG, by profile: volumes whose PV and PVC objects are readable.

        An unreadable object, or a PV without its PVC, makes the whole store useless to the operator and is reported as
        its error (vrg.md 2.5, 3.4).
        """

        async def read(store: S3Store) -> list[Volume]:
            prefixes = (names.pv_prefix(namespace, name), names.pvc_prefix(namespace, name))
            pvs, pvcs = await asyncio.gather(*map(store.read_below, prefixes))
            if len(pvs) != len(pvcs):
                raise Invalid(
                    f"S3 profile {store.name} holds {len(pvs)} PVs but {len(pvcs)} PVCs of {namespace}/{name}: "
                    "the operator restores nothing from it"
                )
            return protected_volumes(namespace, name, pvs | pvcs)

        async def report(profile: str, store: S3Store) -> StoreReport:
            try:
                async with asyncio.timeout(seconds):
                    return StoreReport(profile=profile, reachable=True, volumes=await read(store))
            except Invalid as err:
                return StoreReport(profile=profile, reachable=True, error=str(err))
            except (StoreUnreachable, StoreDenied) as err:
                return StoreReport(profile=profile, reachable=False, error=str(err))
            except TimeoutError:
                return StoreReport(profile=profile, reachable=False, error=_silent(profile, seconds))

        return list(await asyncio.gather(*(report(profile, store) for profile, store in operator_stores.items())))

    # --- How stores are asked ----------------------------------------------------------------------------------------

    async def _write_newer(self, key: str, document: Stamped, seconds: float) -> MirrorWrite:
        def newer(stored: Stamped) -> Stamped | str:
            if stored.epoch.number > document.epoch.number:
                return f"holds epoch {stored.epoch.number}, which is newer than {document.epoch.number}"
            if stored.epoch.number == document.epoch.number and stored.epoch != document.epoch:
                return f"holds another action of epoch {document.epoch.number}"
            if stored.epoch == document.epoch and _moment(stored) > _moment(document):
                return f"holds a later write of epoch {document.epoch.number}"
            return document

        return await self._write(key, document, newer, seconds)

    async def _write(self, key: str, document: Doc, decide: Callable[[Doc], Doc | str], seconds: float) -> MirrorWrite:
        """Writes `document`, or what `decide` makes of the stored one: another document, or why nothing is written."""

        async def write(store: S3Store) -> str:
            for _ in range(WRITE_TRIES):
                found = await self._read(store, key, type(document))
                wanted = decide(found[0]) if found and found[0] else document
                if isinstance(wanted, str):
                    return wanted
                try:
                    await self._put(store, key, wanted, found)
                    return ""
                except PreconditionFailed:
                    continue
            return f"S3 profile {store.name}: {key} changes faster than it can be written"

        answers = await self._each(write, seconds)
        refused = {profile: why for profile, why in answers.values.items() if why}
        return MirrorWrite(sorted(answers.values.keys() - refused.keys()), answers.failed | refused)

    async def _read_newest(self, key: str, kind: type[Stamped], seconds: float) -> Found[Stamped]:
        async def read(store: S3Store) -> Stamped | None:
            found = await store.get(key)
            return kind.decode(found, key) if found else None

        answers = await self._each(read, seconds)
        seen = {profile: value for profile, value in answers.values.items() if value}
        best = max(sorted(seen), key=lambda name: (seen[name].epoch.number, _moment(seen[name])), default=None)
        return Found(seen[best] if best else None, best, sorted(answers.values), answers.failed)

    @staticmethod
    async def _read(store: S3Store, key: str, kind: type[Doc]) -> Versioned[Doc] | None:
        found = await store.get_with_etag(key)
        if not found:
            return None
        try:
            return kind.decode(found[0], key), found[1]
        except Invalid:
            return None, found[1]

    @staticmethod
    async def _put(store: S3Store, key: str, document: Document, over: tuple[object, str] | None) -> None:
        await store.put(key, document.encode(), if_none_match=over is None, if_match=over[1] if over else None)

    async def _each(self, call: Callable[[S3Store], Awaitable[Value]], seconds: float) -> Answers[Value]:
        answers = Answers[Value](failed=dict(self._absent))
        await asyncio.gather(*(_ask(name, store, call, seconds, answers) for name, store in self._stores.items()))
        return answers

    async def _in_turn(
        self, asked: Answers[Value], call: Callable[[S3Store], Awaitable[None]], deadline: float, stored: list[str]
    ) -> None:
        """Calls each store that answered, in the order of names; adds to `stored` and to `asked.failed`."""
        turns = sorted(asked.values)
        for done, name in enumerate(turns):
            left = max(0.0, deadline - asyncio.get_running_loop().time())
            answer = Answers[None](failed=asked.failed)
            await _ask(name, self._stores[name], call, left / (len(turns) - done), answer)
            stored += answer.values


async def _ask(
    name: str, store: S3Store, call: Callable[[S3Store], Awaitable[Value]], seconds: float, answers: Answers[Value]
) -> None:
    """Takes one store's answer; gives up after `seconds` of silence, later if the store is busy with others (S12)."""
    asked = asyncio.ensure_future(call(store))
    try:
        async with asyncio.timeout(max(seconds, BUSY_SECONDS)):
            while not (await asyncio.wait({asked}, timeout=seconds))[0]:
                if not store.answered_within(seconds):
                    raise TimeoutError
        answers.values[name] = asked.result()
    except TimeoutError:
        answers.failed[name] = _silent(name, seconds)
    except (StoreUnreachable, StoreDenied, PreconditionFailed, Invalid) as err:
        answers.failed[name] = str(err)
    finally:
        asked.cancel()


def _silent(name: str, seconds: float) -> str:
    return f"S3 profile {name} did not answer within {seconds:.1f} s"


def _deadline(seconds: float) -> float:
    return asyncio.get_running_loop().time() + seconds


def _written(answers: Answers[Value]) -> MirrorWrite:
    return MirrorWrite(sorted(answers.values), answers.failed)


def _moment(document: StateDocument | DecisionDocument) -> datetime:
    return document.written_at if isinstance(document, StateDocument) else document.decided_at


def _merged(documents: list[WitnessDocument]) -> WitnessDocument:
    """All volumes of all documents of one epoch; a volume seen by anybody was seen."""
    volumes = {(volume.namespace, volume.name): volume for document in documents for volume in document.volumes}
    latest = max(documents, key=lambda document: document.seen_at)
    return latest.model_copy(update={"volumes": [volumes[place] for place in sorted(volumes)]})


def _require_same_request(what: str, found: EpochClaim, claim: EpochClaim, profile: str) -> None:
    if (found.number, found.request_id, found.action) == (claim.number, claim.request_id, claim.action):
        return
    holder = f" by {found.holder}" if found.holder else ""
    raise StaleEpoch(
        f"epoch {found.number} of {what} was claimed{holder} for {found.action} (request {found.request_id}) at "
        f"{_clock_time(found.claimed_at)}, says S3 profile {profile}; epoch {claim.number} cannot be claimed"
    )


def _held(what: str, lock: LockDocument | None, profile: str) -> LockHeld:
    if lock is None:
        return LockHeld(
            f"the lock of {what} in S3 profile {profile} cannot be read: another tool may hold it; wait "
            f"until it is done, or use --break-lock {UNREADABLE} when nobody holds it"
        )
    return LockHeld(
        f"{what} is locked by {lock.holder} (epoch {lock.epoch.number}, since {_clock_time(lock.acquired)}, S3 profile "
        f"{profile}); wait until it is done, or use --break-lock '{lock.holder}' when it is gone for good"
    )


def _clock_time(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%SZ")
