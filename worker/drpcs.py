"""Keeps the DRPC copies of one cluster: what is edited there is asked for, what is so is written there (D9, S7, S16).

Only the writer of the cluster keeps them. An application is looked at when its object or one of its VRGs changes; its
workflow is asked only when something material changed and while an action runs. What follows from the VRG alone is
written without Temporal.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
import uuid
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import Any

from activities.access.protocol import ClusterAccess, Object
from activities.contracts import ProtectRequest
from activities.waiting import Key, KindWatch, object_key
from ramen import names
from ramen.desired import is_released
from ramen.drpc_edits import (
    ASKS,
    Do,
    Entity,
    Known,
    Step,
    Written,
    decide,
    is_being_answered,
    request_id,
    to_write,
)
from ramen.epoch import Epoch
from ramen.errors import AlreadyExists, Conflict, HublessError, NotFound, Refused
from ramen.kinds import DRPC, EVENT, NAMESPACE
from worker import drpc_status
from worker.attention import clusters_of
from worker.drpc_status import Isolation
from worker.entities import Entities, NoAnswer
from worker.isolation import Contact
from workflows.inputs import MoveRequest, StatusView, UnprotectRequest

log = logging.getLogger(__name__)

SETTLE_SECONDS = 0.2
"""Changes come in bursts; looked at once when the burst is over."""

AT_A_TIME = 4
"""Applications that are looked at side by side: a thousand that move at once must not crowd out their own actions."""

REQUESTS_AT_A_TIME = 32
"""Edits that are carried out side by side: the answer to each may take seconds, and others must not wait for it."""

LOOK_SECONDS = 1.0
"""After this time of a look others begin beside it: one that is slow must not hold up the others."""

IDLE_SHARE = 3.0
"""Pause after a look, in times that it took: when a hundred applications move at once their statuses take a quarter of
the loop at most, and are written once for several changes."""

REMEMBERED_EVENTS = 100
"""Events of one application; a tool that sets an edit again and again makes new ones without end."""

LONGEST_SETTLE_SECONDS = 5.0
"""Longest pause for that reason: a status may be behind its application so much, under load."""

FIRST_PAUSE_SECONDS = 1.0
LAST_PAUSE_SECONDS = 30.0
"""Between two questions to a workflow while its action runs, and between two attempts at what failed; it doubles."""

BETWEEN_SECONDS = 1.0
"""A workflow whose VRGs change is asked at most so often: its action comes first, and uses the same worker (D15)."""

REFUSED_SECONDS = 120.0
"""Longest pause before a protection that was refused is asked for again: its cause may have been mended."""

DEBT_SECONDS = 300.0
"""Longest pause for an application with a debt and nothing running: its VRGs tell when that changes."""

ROUTINE_SECONDS = 30.0
"""New figures of a running replication are written at most so often (status of a thousand applications)."""

WRITER_LOOK_SECONDS = 1.0
"""Between two looks at whether this worker is the cluster's writer."""


@dataclass
class _App:
    """What is remembered of one application."""

    known: Known = field(default_factory=lambda: Known(Entity.UNKNOWN, why="not asked yet"))
    view: StatusView | None = None
    ask: bool = True
    """The workflow has to be asked at the next look."""
    urgent: bool = True
    """The object itself changed: somebody waits for an answer."""
    asked_at: float = float("-inf")
    due: float = 0.0
    pause: float = FIRST_PAUSE_SECONDS
    written_at: float = float("-inf")
    said: set[str] = field(default_factory=set)
    """Events that were sent: one for each, however often the application is looked at."""
    attempt: str = ""
    """Tells a request from one of the same object that was refused before; kept while nobody answers."""
    notice: str = ""
    """Why a copy that was deleted is made again; shown on the new one."""
    untold: Step | None = None
    """A refusal whose edit was set back and whose status could not be written yet."""


class Keeper:
    """The copies of one cluster. `seen` tells an application's VRGs by cluster; `now` is monotonic, in seconds."""

    def __init__(
        self,
        cluster: str,
        access: Callable[[], ClusterAccess],
        is_writer: Callable[[], bool],
        seen: Callable[[Key], dict[str, Object | None]],
        entities: Callable[[], Entities | None],
        contact: Contact | None = None,
        now: Callable[[], float] = time.monotonic,
        settle_seconds: float = SETTLE_SECONDS,
        routine_seconds: float = ROUTINE_SECONDS,
    ) -> None:
        self.cluster = cluster
        self.watch = KindWatch(access, DRPC)
        self.watch.on_change.append(self._object_changed)
        self._access = access
        self._is_writer = is_writer
        self._seen = seen
        self._entities = entities
        self._contact = contact
        self._now = now
        self._settle_seconds = settle_seconds
        self._routine_seconds = routine_seconds
        self._apps: dict[Key, _App] = {}
        self._wake = asyncio.Event()
        self._hurry = asyncio.Event()
        self._took = 0.0
        self._slots = asyncio.Semaphore(AT_A_TIME)
        self._requests = asyncio.Semaphore(REQUESTS_AT_A_TIME)
        self._looking: dict[Key, asyncio.Task[None]] = {}
        """Applications that are being looked at."""

    # --- what makes an application be looked at --------------------------------------------------------------------

    def vrg_changed(self, old: Object | None, new: Object | None) -> None:
        """For `SharedWatch.on_vrg` of every cluster: a material change asks the workflow, any change is shown."""
        for obj in (old, new):
            if obj is not None and clusters_of(obj):
                self.mark([object_key(obj)], ask=_material(old) != _material(new))
                return

    def mark(self, apps: Iterable[Key], ask: bool = True, urgent: bool = False) -> None:
        """Looks at these applications soon."""
        for app in apps:
            found = self._apps.setdefault(app, _App())
            found.due = 0.0
            if ask:
                found.ask, found.pause = True, FIRST_PAUSE_SECONDS
                found.urgent = found.urgent or urgent
        self._wake.set()
        if urgent:
            self._hurry.set()

    def show_again(self) -> None:
        """Looks at every application without asking its workflow."""
        self.mark(list(self._apps), ask=False)

    def _object_changed(self, old: Object | None, new: Object | None) -> None:
        """A DRPC came, changed or went; its status is this worker's own and tells nothing."""
        if old is not None and new is not None and _said(old) == _said(new):
            return
        self.mark([object_key(new or old or {})], urgent=True)

    # --- the loop ----------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Keeps the copies until cancelled."""
        self.watch.start()
        lost = was_writer = False
        try:
            while True:
                is_writer, is_lost = self._is_writer(), self._contact is not None and self._contact.is_lost
                if is_writer and not was_writer:
                    self.mark({*self._apps, *(object_key(each) for each in self.watch.objects())})
                if is_lost and not lost:
                    self.show_again()
                elif lost and not is_lost:
                    self.mark(list(self._apps))
                was_writer, lost = is_writer, is_lost
                works = is_writer and self.watch.live
                if works:
                    began = self._now()
                    begun = self._begin()
                    if begun:
                        await asyncio.wait(begun, timeout=LOOK_SECONDS)
                    self._took = self._now() - began
                await self._pause(works)
        finally:
            for task in self._looking.values():
                task.cancel()
            await self.watch.stop()

    async def _pause(self, works: bool) -> None:
        """Until something is due or was marked; who does not work here only looks whether that has changed."""
        if not works:
            await asyncio.sleep(WRITER_LOOK_SECONDS)
            return
        due = min((app.due for app in self._apps.values()), default=float("inf"))
        limit = min(WRITER_LOOK_SECONDS, max(self._settle_seconds, due - self._now()))
        try:
            async with asyncio.timeout(limit):
                await self._wake.wait()
            await asyncio.sleep(self._settle_seconds)
        except TimeoutError:
            pass
        more = min(IDLE_SHARE * self._took, LONGEST_SETTLE_SECONDS) - self._settle_seconds
        with suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, more)):
                await self._hurry.wait()
        self._hurry.clear()
        self._wake.clear()

    async def look(self) -> None:
        """Looks at every application that is due, and returns when all of these looks have ended."""
        await asyncio.gather(*self._begin())

    def _begin(self) -> list[asyncio.Task[None]]:
        """Begins to look at every application that is due and not being looked at."""
        now = self._now()
        due = [key for key, app in self._apps.items() if app.due <= now and key not in self._looking]
        for key in due:
            self._looking[key] = task = asyncio.create_task(self._safely(key), name=f"DRPC {key[0]}/{key[1]}")
            task.add_done_callback(partial(self._looked, key))
        return [self._looking[key] for key in due]

    def _looked(self, key: Key, _ended: asyncio.Task[None]) -> None:
        del self._looking[key]
        self._wake.set()

    async def _safely(self, key: Key) -> None:
        app = self._apps[key]
        app.due = float("inf")
        try:
            await self._keep(key, app)
        except (Conflict, AlreadyExists, NotFound):
            app.due = self._now() + self._settle_seconds  # the watch is behind; the next look sees what is there
        except HublessError as err:
            log.info("DRPC %s/%s on %s: %s", *key, self.cluster, err, extra={"cluster": self.cluster})
            self._again(app)
        except Exception:
            # One object that cannot be understood may not end the care for all others.
            log.exception("DRPC %s/%s on %s", *key, self.cluster)
            self._again(app)

    def _again(self, app: _App, last: float = LAST_PAUSE_SECONDS) -> None:
        app.due = min(app.due, self._now() + app.pause)
        app.pause = min(app.pause * 2, last)

    # --- one application ---------------------------------------------------------------------------------------------

    async def _keep(self, key: Key, app: _App) -> None:
        async with self._slots:
            await self._learn(key, app)
        objects, _ = self.watch.latest(key)
        obj = {"spec": {}, **objects[0]} if objects else None
        seen = self._seen(key)
        if obj is None and app.known.entity is not Entity.PROTECTED:
            if app.known.entity in (Entity.UNPROTECTED, Entity.ABSENT) and not any(seen.values()):
                self._apps.pop(key, None)
            return
        async with self._slots:
            can_make = await self._can_make(key, obj)
        has_vrg = self.cluster not in seen or seen[self.cluster] is not None
        was_released = is_released(seen.get(self.cluster))

        def judged() -> Step:
            return decide(self.cluster, obj, app.known, can_make=can_make, has_vrg=has_vrg, was_released=was_released)

        step = judged()
        if step.do in ASKS and obj is not None:
            async with self._requests:
                step = await self._ask(step, obj, app)
            if not self._is_writer():
                return  # another worker writes here by now (S16), and finds the request accepted or asks again
        async with self._slots:
            if step.do in ASKS and obj is not None:
                # Accepted: the workflow is asked what it says now, and the copy follows it.
                app.ask = app.urgent = True
                await self._learn(key, app)
                step = judged()
            if obj is not None and is_being_answered(self.cluster, obj, app.known):
                app.ask = True  # no change of an object tells of its answer
                self._again(app)
            await self._carry_out(step, key, obj, app, seen)

    async def _carry_out(
        self, step: Step, key: Key, obj: Object | None, app: _App, seen: dict[str, Object | None]
    ) -> None:
        """Changes the object as the step says, and tells of it in its status."""
        if step.do is Do.RESTORE:
            app.untold = step
        obj = await self._act(step, key, obj, app)
        if obj is not None and step.do is Do.MAKE and app.notice:
            step, app.notice = Step(Do.MAKE_AGAIN, app.notice), ""
        elif step.do in (Do.NOTHING, Do.WRITE) and app.untold is not None:
            step = app.untold
        if obj is not None:
            await self._tell(step, obj, app, seen)
        app.untold = None

    async def _learn(self, key: Key, app: _App) -> None:
        """Asks the workflow when that is due, and decides when it is asked again."""
        now = self._now()
        if app.ask and not app.urgent and now < app.asked_at + BETWEEN_SECONDS:
            app.due = min(app.due, app.asked_at + BETWEEN_SECONDS)
            return
        if app.ask:
            # What is marked during the question is asked for once more.
            app.asked_at, app.urgent, app.ask = now, False, False
            entities = self._entities()
            if entities is None:
                app.known = Known(Entity.UNKNOWN, why="Temporal does not answer")
            else:
                try:
                    app.known, view = await entities.ask(*key)
                except BaseException:
                    app.ask = True
                    raise
                app.view = view if app.known.entity is not Entity.UNKNOWN else app.view
        if app.known.entity in (Entity.UNKNOWN, Entity.LEAVING) or (app.view is not None and app.view.child):
            app.ask = True
            self._again(app)
        elif app.view is not None and app.view.state.debts:
            app.ask = True
            self._again(app, DEBT_SECONDS)

    async def _can_make(self, key: Key, obj: Object | None) -> bool:
        """Whether a copy can be made in the namespace; asked only where it matters."""
        if obj is not None and not obj["metadata"].get("deletionTimestamp"):
            return True
        found = await self._access().read(NAMESPACE, key[0])
        return found is not None and not found["metadata"].get("deletionTimestamp")

    async def _ask(self, step: Step, obj: Object, app: _App) -> Step:
        """Sends what the object asks for; an ASK comes back when it was accepted."""
        entities = self._entities()
        metadata, ask_id = obj["metadata"], request_id(self.cluster, obj)
        namespace, name = metadata["namespace"], metadata["name"]
        if app.attempt:
            # Temporal gives the same request the same answer for good; a refusal started nothing, so this is another.
            ask_id = f"{ask_id}/{app.attempt}"
        requester = f"kubectl on {self.cluster}"
        basis = app.known.epoch.number if app.known.epoch else None
        if entities is None:
            return Step(Do.WAIT, "not carried out yet: Temporal does not answer")
        try:
            if step.do is Do.PROTECT:
                request = ProtectRequest(
                    namespace=namespace,
                    name=name,
                    spec=obj["spec"],
                    annotations=metadata.get("annotations") or {},
                    uid=metadata["uid"],
                )
                await entities.protect(request, ask_id, requester)
            elif step.do is Do.UNPROTECT:
                unprotect = UnprotectRequest(
                    request_id=ask_id,
                    requester=requester,
                    reason="DRPC deleted",
                    basis_epoch=basis,
                    # The decision of a move that runs comes under the epoch that was known before it (S7).
                    basis_serving=app.known.serving,
                )
                await entities.send(namespace, name, "unprotect", unprotect)
            else:
                move = MoveRequest(
                    target=step.target,
                    request_id=ask_id,
                    requester=requester,
                    reason="DRPC edited",
                    basis_epoch=basis,
                    requested_at=datetime.now(UTC),
                )
                await entities.send(namespace, name, step.do.value, move)
        except Refused as err:
            app.attempt = uuid.uuid4().hex[:8]
            self._again(app, REFUSED_SECONDS)
            app.ask = True
            return Step(_REFUSED[step.do], str(err))
        except NoAnswer as err:
            self._again(app)
            app.ask = True
            return Step(Do.WAIT, f"not carried out yet: {err}")
        except HublessError as err:
            app.attempt = uuid.uuid4().hex[:8]
            self._again(app)
            app.ask = True
            return Step(Do.REFUSE if step.do is Do.PROTECT else Do.WAIT, str(err))
        log.info("%s of %s/%s was asked for on %s", step.do, namespace, name, self.cluster)
        return step

    async def _act(self, step: Step, key: Key, obj: Object | None, app: _App) -> Object | None:
        """Carries a step out on the object; returns it as it is then, None when it is gone."""
        access = self._access()
        if obj is None:
            return await self._make(key, app.known) if step.do is Do.MAKE else None
        match step.do:
            case Do.RESTORE:
                # Told first: once it is written, nothing shows any more that there was an edit.
                await self._event(obj, app, "Warning", "DRPCEditRefused", step.message)
                return await self._write(obj, app.known)
            case Do.WRITE:
                obj = await self._write(obj, app.known)
            case Do.RELEASE | Do.MAKE_AGAIN:
                if step.message:
                    await self._event(obj, app, "Warning", "DRPCMadeAgain", step.message)
                app.notice = step.message
                await access.replace(DRPC, _with_finalizer(obj, present=False))
                return None  # the watch shows that it is gone, and the next look makes it again
            case Do.DELETE:
                metadata = obj["metadata"]
                freed = await access.replace(DRPC, _with_finalizer(obj, present=False))
                version = freed["metadata"].get("resourceVersion")
                await access.delete(DRPC, metadata["name"], metadata["namespace"], metadata["uid"], version)
                return None
            case _:
                pass
        if step.message:
            reason = "DRPCWaiting" if step.do is Do.WAIT else "DRPCEditRefused"
            await self._event(obj, app, "Warning", reason, step.message)
        return obj

    async def _make(self, key: Key, known: Known) -> Object:
        # Made with a note, or it is a user's new object once this worker died before the next write.
        note = Written("", known.epoch, dict(known.spec)).to_text()
        body: Object = {
            "metadata": {
                "name": key[1],
                "namespace": key[0],
                "finalizers": [names.DRPC_FINALIZER],
                "labels": {names.CREATED_BY_RAMEN: "true"},
                "annotations": {names.WRITTEN: note},
            },
            "spec": dict(known.spec),
        }
        made = await self._access().create(DRPC, body, key[0])
        return await self._write(made, known)

    async def _write(self, obj: Object, known: Known) -> Object:
        """Spec and note of a copy, guarded by the version that was judged."""
        spec = to_write(obj, known)
        note = Written(obj["metadata"]["uid"], known.epoch, spec).to_text()
        body = _with_finalizer({**obj, "spec": spec}, present=True)
        annotations = {**(body["metadata"].get("annotations") or {}), names.WRITTEN: note}
        body["metadata"] = {**body["metadata"], "annotations": annotations}
        return await self._access().replace(DRPC, body)

    async def _tell(self, step: Step, obj: Object, app: _App, seen: dict[str, Object | None]) -> None:
        """Writes the status when it says something new, and the event of a transition that was stored."""
        contact = self._contact
        isolation = Isolation(contact.last) if contact is not None and contact.is_lost else None
        old = obj.get("status") or {}
        new = drpc_status.build(obj, app.known, app.view, seen, step, isolation, datetime.now(UTC))
        if new == old:
            return
        now = self._now()
        if drpc_status.is_routine(old, new) and now < app.written_at + self._routine_seconds:
            app.due = min(app.due, app.written_at + self._routine_seconds)
            return
        await self._access().replace(DRPC, {**obj, "status": new}, "status")
        app.written_at = now
        event = drpc_status.phase_event(old, new)
        if event is not None:
            await self._event(obj, app, *event)

    async def _event(self, obj: Object, app: _App, kind: str, reason: str, message: str) -> None:
        """One event for one stored transition or refusal; the name makes a repetition after a restart meet itself."""
        metadata = obj["metadata"]
        subject = f"{metadata['uid']}/{metadata.get('generation')}/{reason}/{message}"
        if subject in app.said:
            return
        moment = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        body: Object = {
            "metadata": {
                "name": f"{metadata['name']}.{hashlib.sha256(subject.encode()).hexdigest()[:16]}",
                "namespace": metadata["namespace"],
            },
            "involvedObject": {
                "apiVersion": DRPC.api_version,
                "kind": DRPC.kind,
                "name": metadata["name"],
                "namespace": metadata["namespace"],
                "uid": metadata["uid"],
                "resourceVersion": metadata.get("resourceVersion", ""),
            },
            "type": kind,
            "reason": reason,
            "message": message[:1024],
            "source": {"component": "hubless"},
            "firstTimestamp": moment,
            "lastTimestamp": moment,
            "count": 1,
        }
        try:
            await self._access().create(EVENT, body, metadata["namespace"])
        except AlreadyExists:
            pass
        except HublessError as err:
            log.info("event %s of %s was not written: %s", reason, metadata["name"], err)
            return
        if len(app.said) >= REMEMBERED_EVENTS:
            app.said.clear()  # the same event has the same name, so it meets itself on the server
        app.said.add(subject)


_REFUSED = {
    Do.PROTECT: Do.REFUSE,
    Do.UNPROTECT: Do.MAKE_AGAIN,
    Do.FAILOVER: Do.RESTORE,
    Do.RELOCATE: Do.RESTORE,
}
"""What follows from a refusal: an edit is set back, a deletion is undone, a new object stays as it is."""


def _with_finalizer(obj: Object, present: bool) -> Object:
    metadata = obj["metadata"]
    others = [name for name in metadata.get("finalizers") or [] if name != names.DRPC_FINALIZER]
    return {**obj, "metadata": {**metadata, "finalizers": [*others, *([names.DRPC_FINALIZER] if present else [])]}}


def _said(obj: Object) -> Any:
    """What somebody else may have changed of an object."""
    metadata = obj["metadata"]
    fields = ("uid", "generation", "deletionTimestamp", "annotations", "finalizers")
    return [metadata.get(name) for name in fields]


def _material(vrg: Object | None) -> Any:
    """What of a VRG may mean that its workflow knows something new."""
    if vrg is None:
        return None
    metadata, status = vrg["metadata"], vrg.get("status") or {}
    return (
        metadata.get("generation"),
        metadata.get("deletionTimestamp"),
        Epoch.of(vrg),
        (metadata.get("annotations") or {}).get(names.DECISION),
        status.get("state"),
    )
