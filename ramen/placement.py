"""Where an application is to serve first when its DRPC names no preferredCluster (design 7). No I/O.

Readiness chooses, but never against the data: a cluster that already holds the application's volumes is where it runs,
and a cluster that does not answer may hold them. What cannot be told is asked of a person, with the reason.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ramen.errors import Refused

NAME_ONE = "Name one: --preferred CLUSTER, or spec.preferredCluster"


@dataclass(frozen=True)
class Candidate:
    """A cluster of the policy, as it was seen a moment ago."""

    cluster: str
    silent: str = ""
    """Why it does not answer; empty when it does, and only then the rest says anything."""
    volumes: int = 0
    """PVCs there that the application's selector takes."""
    lacks: tuple[str, ...] = ()
    """Storage classes of the policy's peer classes that it does not have."""
    store: str = ""
    """Why its S3 store cannot be used; empty when it can."""

    @property
    def obstacle(self) -> str:
        """Why an application should not begin there, in one clause; empty when it may."""
        if self.silent:
            return self.silent
        if self.lacks:
            return f"{self.cluster} lacks StorageClass {', '.join(self.lacks)}"
        return self.store and f"the store of {self.cluster} cannot be used ({self.store})"


@dataclass(frozen=True)
class Choice:
    """The cluster, and why it and no other."""

    cluster: str
    reason: str


def choose(app: str, policy: str, candidates: Sequence[Candidate]) -> Choice:
    """The cluster on which an application is to serve first; candidates in the policy's order.

    Raises `Refused`, which says what is not known or not ready.
    """
    holding = [each for each in candidates if not each.silent and each.volumes]
    silent = [each for each in candidates if each.silent]
    if len(holding) > 1:
        where = " and ".join(each.cluster for each in holding)
        raise Refused(
            f"{app}: preferredCluster is empty, and {where} hold volumes that its pvcSelector takes, so it cannot be "
            f"told where it runs. {NAME_ONE}."
        )
    if holding:
        count = holding[0].volumes
        volumes = f"{count} volume{'s' if count > 1 else ''}"
        return Choice(holding[0].cluster, f"{volumes} of {app} {'are' if count > 1 else 'is'} there")
    if silent:
        why = "; ".join(each.silent for each in silent)
        raise Refused(
            f"{app}: preferredCluster is empty, and it is not known whether {app} runs on "
            f"{', '.join(each.cluster for each in silent)} ({why}). {NAME_ONE}."
        )
    ready = [each for each in candidates if not each.obstacle]
    if not ready:
        raise Refused(
            f"{app}: preferredCluster is empty, and no cluster of policy {policy} is ready: "
            f"{'; '.join(each.obstacle for each in candidates)}. Mend it, or name one: --preferred CLUSTER."
        )
    skipped = [each.obstacle for each in candidates[: candidates.index(ready[0])]]
    rank = f"the first ready one of policy {policy}"
    return Choice(ready[0].cluster, rank + (f"; {'; '.join(skipped)}" if skipped else ""))
