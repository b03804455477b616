"""Process that plays Ramen's dr-cluster operator on one cluster of the sandbox: `python -m sandbox.standins.operator`.

It keeps the contract of vrg.md 5 on the objects of the real operator, so that the real binary can take its place.
Its slowness is the real one's too: every pass that asks for another goes through one back-off per VRG, 1, 2, 4 s
up to a minute (vrg.md 1.2), times `--delay-scale`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any

from activities.access.protocol import ClusterAccess, Object
from ramen import kinds, names
from ramen.kinds import Kind
from sandbox.standins import runtime
from sandbox.standins import vrg_conditions as cond
from sandbox.standins import vrg_reconcile as rules
from sandbox.standins.operator_pass import reconcile
from sandbox.standins.operator_world import CONFIGURED, WATCHED, World
from sandbox.standins.runtime import Mirror, Name, Next, WorkQueue, name_of

log = logging.getLogger(__name__)

BACK_OFF_FIRST, BACK_OFF_LAST = 1.0, 60.0
"""Seconds, as measured with the real operator (vrg.md 1.2)."""

BACK_OFF_FLOOR = 0.02
"""Seconds before the first repetition at scale 0: soon, but not a spinning loop."""


SYNC_PAUSE = 0.5
"""Seconds after a volume's sync time moved: the other volumes of the group follow at once, and share the pass.

The real operator spends a pass, a status write and an upload on each; with hundreds of volumes that sync every few
seconds, a small machine does nothing else. What is written in the end is the same.
"""


class Operator:
    """Mirrors, queue and wake-up rules of one operator."""

    def __init__(self, access: ClusterAccess, delay_scale: float = 1.0) -> None:
        mirrors = {kind: Mirror(access, kind, self._waker(kind, delay_scale)) for kind in WATCHED}
        for kind in CONFIGURED:
            mirrors[kind] = Mirror(access, kind, self._waker(kind, delay_scale), names.RAMEN_NAMESPACE)
        self.world = World(access, mirrors)
        back_off = runtime.growing(BACK_OFF_FIRST * delay_scale, BACK_OFF_LAST, BACK_OFF_FLOOR)
        self.queue: WorkQueue[Name] = WorkQueue(self._pass, back_off)

    def loops(self) -> list[Coroutine[Any, Any, None]]:
        """What has to run: one watch per kind, and the queue once all first lists are complete."""
        return [*(mirror.run() for mirror in self.world.mirrors.values()), self._work()]

    async def _work(self) -> None:
        await asyncio.gather(*(mirror.synced.wait() for mirror in self.world.mirrors.values()))
        log.info("all kinds listed; working on %d VRGs", sum(1 for _ in self.world.mirrors[kinds.VRG].all()))
        await self.queue.run()

    async def _pass(self, key: Name) -> Next:
        return await reconcile(self.world, key)

    # --- who is woken by what -----------------------------------------------------------------------------------------

    def _waker(self, kind: Kind, delay_scale: float) -> runtime.OnChange | None:
        """The real operator wakes on VRGs, PVCs, VolumeReplications and its ConfigMap, never on pods (vrg.md 1.2).

        Without delays pods and attachments wake it too: waiting for a grown back-off is then no part of the play.
        """
        by_kind: dict[Kind, runtime.OnChange] = {
            kinds.VRG: self._on_vrg,
            kinds.PVC: self._on_pvc,
            kinds.VOLUME_REPLICATION: self._on_replication,
            kinds.CONFIG_MAP: self._on_config,
        }
        if delay_scale == 0:
            by_kind[kinds.POD] = self._on_pod
            by_kind[kinds.VOLUME_ATTACHMENT] = self._on_attachment
        return by_kind.get(kind)

    def _on_vrg(self, before: Object | None, after: Object | None) -> None:
        if before is None or after is None or _wakes(before) != _wakes(after):
            self.queue.add(name_of(after or before or {}))

    def _on_pvc(self, before: Object | None, after: Object | None) -> None:
        for pvc in (before, after):
            if pvc is not None:
                owner = rules.owner_of(pvc)
                self.queue.add_all([owner] if owner else [])
                self.queue.add_all(name_of(vrg) for vrg in self._reaching(pvc) if rules.selects(vrg, pvc))

    def _on_replication(self, before: Object | None, after: Object | None) -> None:
        owner = rules.owner_of(after or before or {})
        if owner is None:
            return
        if before is not None and after is not None and _but_sync_times(before) == _but_sync_times(after):
            self.queue.add_after(owner, SYNC_PAUSE)
        else:
            self.queue.add(owner)

    def _on_config(self, before: Object | None, after: Object | None) -> None:
        if name_of(after or before or {})[1] == names.RAMEN_CONFIG_MAP:
            self.queue.add_all(name_of(vrg) for vrg in self.world.mirrors[kinds.VRG].all())

    def _on_pod(self, before: Object | None, after: Object | None) -> None:
        if after is None and before is not None:
            self.queue.add_all(name_of(vrg) for vrg in self._reaching(before))

    def _on_attachment(self, before: Object | None, after: Object | None) -> None:
        if after is None:
            self.queue.add_all(name_of(vrg) for vrg in self.world.mirrors[kinds.VRG].all())

    def _reaching(self, body: Object) -> list[Object]:
        """VRGs that protect the namespace of the object."""
        namespace = body["metadata"]["namespace"]
        vrgs = self.world.mirrors[kinds.VRG]
        admin = vrgs.within(self.world.config().ops_namespace)
        return [
            *vrgs.within(namespace),
            *(vrg for vrg in admin if namespace in (vrg["spec"].get("protectedNamespaces") or ())),
        ]


def _wakes(vrg: Object) -> tuple[Any, ...]:
    """What of a VRG counts as a change; the status does not."""
    meta = vrg["metadata"]
    return meta.get("generation"), meta.get("labels"), meta.get("annotations"), meta.get("deletionTimestamp")


def _but_sync_times(vr: Object) -> tuple[Any, ...]:
    """What of a VolumeReplication asks for a pass at once."""
    meta = vr["metadata"]
    status = {key: value for key, value in (vr.get("status") or {}).items() if key not in cond.SYNC_FIELDS}
    return meta.get("generation"), meta.get("deletionTimestamp"), meta.get("finalizers"), status


async def run(options: runtime.Options) -> None:
    """Plays the operator of one cluster until SIGTERM."""
    access = await runtime.connect(options.directory, options.cluster, "operator")
    try:
        await runtime.until_stopped(Operator(access, options.delay_scale).loops())
    finally:
        await access.close()


def main() -> None:
    """Entry of the process."""
    runtime.configure_logging()
    asyncio.run(run(runtime.parse("Stand-in for Ramen's dr-cluster operator")))


if __name__ == "__main__":
    main()
