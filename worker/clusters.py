"""The clusters that this worker can reach: who they are, how they are reached, and whether they answer.

The own cluster comes from the settings. Its ClusterRegistry names the peers, its Secrets hold their kubeconfigs. Both
are watched, and read again on a fixed beat with one call each, however many applications there are. A changed
kubeconfig replaces the client without a restart once it has proved that it leads to the same cluster; until then the
one from before stays in use. While the own API server is away, what was read last stays in force.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from base64 import b64decode
from binascii import Error as Base64Error
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml

from activities.access.direct import DirectAccess
from activities.access.protocol import ClusterAccess, Object
from activities.contracts import ClusterHealth
from ramen import kubeconfig as kubeconfigs
from ramen import names
from ramen.errors import ClusterUnreachable, Forbidden, GateClosed, HublessError, Invalid, Unauthorized, WrongCluster
from ramen.kinds import CLUSTER_REGISTRY, CONFIG_MAP, NAMESPACE, SECRET
from ramen.objects import ClusterRegistry, RegisteredCluster
from worker.follow import Follower
from worker.gate import Gate
from worker.retire import Retired
from worker.session import Session
from worker.telemetry import redact

log = logging.getLogger(__name__)

PROBE_LIMIT_SECONDS = 1.0
"""A probe takes milliseconds; a server that needs more than this cannot carry a failover."""

PROBE_AGAIN_SECONDS = 0.3
"""After a first failure the second look comes fast: a dead cluster is known within one beat and about 2.5 s."""

LATE_SECONDS = 0.5
"""A time-out that comes so much too late says that this process stood still, and nothing about the cluster."""

REFRESH_AGAIN_SECONDS = 1.0
"""Shortest pause between two looks at the registry, whoever asks for one."""

REREAD_SECONDS = 2.0
"""After a 401 the credentials are read again at once, and while it lasts after this time, doubled each time."""

IDENTITY_NAMESPACE = "kube-system"
"""Its UID lives as long as the cluster does, so it is the cluster's fingerprint (S11)."""

Connect = Callable[[str, dict[str, Any] | None], Awaitable[ClusterAccess]]
"""Makes a client from a parsed kubeconfig, or from the pod's service account for None; raises `Invalid`."""

Refreshed = Callable[[Object | None, list[Object]], None]
"""Called after each refresh with the operator's ConfigMap and the Secrets of its namespace."""


async def connect(name: str, kubeconfig: dict[str, Any] | None) -> ClusterAccess:
    """The real `Connect`."""
    if kubeconfig is None:
        return await DirectAccess.in_cluster(name)
    return await DirectAccess.from_kubeconfig(name, kubeconfig)


class Member:
    """One cluster: gate, session, and where its credentials come from."""

    def __init__(self, name: str, source: str) -> None:
        self.name = name
        self.source = source
        """Where the kubeconfig comes from, for messages: `Secret ramen-system/kubeconfig-dr2`."""
        self.uid = ""
        self.gate = Gate(name)
        self.session = Session(name, self.gate)
        self.fingerprint = ""
        """Hash of the kubeconfig behind the session; the kubeconfig itself is not kept."""
        self.runs_program = False
        """Its credential comes from a program, which has to run again when it is refused."""
        self.note = ""
        """What is wrong although the cluster answers: new credentials that were not taken."""
        self.look_now = asyncio.Event()
        """Set when a call met a 401: the next probe is due."""
        self.reread_due, self.reread_pause = 0.0, REREAD_SECONDS
        self.task: asyncio.Task[None] | None = None
        self.session.on_refused = self.look_now.set


class Clusters:
    """All members, kept up to date by `run`."""

    def __init__(
        self,
        own: str,
        kubeconfig: Path | None,
        namespace: str = names.RAMEN_NAMESPACE,
        probe_seconds: float = 2.0,
        refresh_seconds: float = 30.0,
        connect: Connect = connect,
        identity: str = "",
    ) -> None:
        self.own = own
        self.revision = 0
        """Grows when a cluster joins or leaves."""
        self._moved = asyncio.Event()
        self._identity = identity
        self._kubeconfig = kubeconfig
        self._namespace = namespace
        self._probe_seconds = probe_seconds
        self._refresh_seconds = refresh_seconds
        self._connect = connect
        self._refresh_now = asyncio.Event()
        self.registered: list[RegisteredCluster] = []
        """The registry's clusters as last read."""
        self._on_refresh: list[Refreshed] = []
        self._retired = Retired()
        self._said: set[str] = set()
        source = f"kubeconfig {kubeconfig.name}" if kubeconfig else "the pod's service account"
        self._members: dict[str, Member] = {own: Member(own, source)}

    # --- what others ask ---------------------------------------------------------------------------------------------

    def names(self) -> list[str]:
        """All clusters known, the own one first."""
        return list(self._members)

    def gate(self, name: str) -> Gate:
        """The gate of a cluster; raises `GateClosed` for one that the registry does not name."""
        return self._member(name).gate

    def access(self, name: str) -> ClusterAccess:
        """What an activity works with; raises `GateClosed` while the cluster does not answer."""
        member = self._member(name)
        member.gate.require()
        return member.session

    def session(self, name: str) -> Session:
        """The cluster's session, whether it answers or not; raises `GateClosed` for an unknown cluster."""
        return self._member(name).session

    def health(self) -> list[ClusterHealth]:
        """What this worker knows of every cluster."""
        return [member.gate.health(self._identity) for member in self._members.values()]

    def has_credentials(self, name: str) -> bool:
        """Whether there is a client for the cluster at all, whether it answers or not."""
        return self._member(name).session.client is not None

    def note(self, name: str) -> str:
        """What is wrong with a cluster's credentials although it answers; empty normally."""
        return self._member(name).note

    def on_refresh(self, listener: Refreshed) -> None:
        """Calls `listener` with the operator's ConfigMap and Secrets whenever they were read."""
        self._on_refresh.append(listener)

    async def changed_since(self, revision: int) -> None:
        """Waits until a cluster joined or left after `revision`."""
        while self.revision == revision:
            await self._moved.wait()

    def _members_changed(self) -> None:
        self.revision += 1
        moved, self._moved = self._moved, asyncio.Event()
        moved.set()

    def _member(self, name: str) -> Member:
        try:
            return self._members[name]
        except KeyError:
            raise GateClosed(
                f"{name} is not in the ClusterRegistry that this worker reads on {self.own}; add it there"
            ) from None

    # --- keeping up to date ------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Probes and refreshes until cancelled."""
        own = self._members[self.own]
        follower = Follower(own.session, own.gate, self._namespace, self._refresh_now.set)
        self._start(own)
        following = asyncio.create_task(follower.run(), name="follow registry and Secrets")
        try:
            while True:
                await self._members[self.own].gate.opened()
                self._refresh_now.clear()
                try:
                    await self.refresh()
                except HublessError as err:
                    self._say(f"registry and Secrets of {self.own} were not read, the last known stay in force: {err}")
                except Exception:
                    log.exception("registry and Secrets of %s could not be applied", self.own)
                await asyncio.sleep(REFRESH_AGAIN_SECONDS)
                with suppress(TimeoutError):
                    async with asyncio.timeout(max(0.0, self._refresh_seconds - REFRESH_AGAIN_SECONDS)):
                        await self._refresh_now.wait()
        finally:
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)
            await self._stop_all()

    async def refresh(self) -> None:
        """Reads registry, Secrets and the operator's configuration of the own cluster once, and applies them.

        Raises what the reads raise; nothing is changed then.
        """
        session = self._members[self.own].session
        registry = await session.read(CLUSTER_REGISTRY, names.REGISTRY_NAME)
        secrets, _ = await session.list(SECRET, self._namespace)
        config = await session.read(CONFIG_MAP, names.RAMEN_CONFIG_MAP, self._namespace)
        if registry is None:
            self._say(
                f"ClusterRegistry {names.REGISTRY_NAME} is missing on {self.own}: no peer can be reached; "
                f"apply it with the name, clusterUID and kubeconfigSecret of each cluster"
            )
        else:
            self.registered = ClusterRegistry.model_validate(registry).spec.clusters
            await self._apply(self.registered, secrets)
        for listener in self._on_refresh:
            try:
                listener(config, secrets)
            except Exception:
                # People write these objects; nothing in them may end a worker that is needed in a disaster.
                log.exception("the configuration of %s could not be applied", self.own)

    async def _apply(self, registered: list[RegisteredCluster], secrets: list[Object]) -> None:
        wanted = {cluster.name: cluster for cluster in registered}
        if self.own not in wanted:
            self._say(f"ClusterRegistry {names.REGISTRY_NAME} does not name this cluster, {self.own}; add it")
        for name in [name for name in self._members if name not in wanted and name != self.own]:
            log.info("%s left the ClusterRegistry", name, extra={"cluster": name})
            leaving = self._members.pop(name)
            await self._end(leaving)
            leaving.gate.shut(f"{name} left the ClusterRegistry")
            self._members_changed()
        contents = {secret["metadata"]["name"]: secret.get("data") or {} for secret in secrets}
        for name, cluster in wanted.items():
            member = self._members.get(name)
            if member is None:
                log.info("%s is in the ClusterRegistry", name, extra={"cluster": name})
                member = Member(name, f"Secret {self._namespace}/{cluster.kubeconfig_secret}")
                self._members[name] = member
                self._members_changed()
            before, member.uid = member.uid, cluster.cluster_uid
            is_another = bool(before) and before != member.uid
            if is_another:
                # Open watches and views of the cluster before must not go on under this name (S11).
                member.gate.shut(f"the ClusterRegistry has another clusterUID for {name}, which is being checked")
                await member.session.close()
            if not member.uid:
                self._say(f"the ClusterRegistry has no clusterUID for {name}: a wrong kubeconfig would go unnoticed")
            if name != self.own:
                member.source = f"Secret {self._namespace}/{cluster.kubeconfig_secret}"
                await self._use_secret(member, contents.get(cluster.kubeconfig_secret))
            self._start(member)
            if is_another:
                member.look_now.set()

    async def _use_secret(self, member: Member, data: dict[str, str] | None) -> None:
        if data is None or names.KUBECONFIG_KEY not in data:
            what = "is missing" if data is None else f"has no key {names.KUBECONFIG_KEY}"
            member.gate.shut(f"{member.source} {what} on {self.own}; create it with a kubeconfig for {member.name}")
            return
        try:
            text = b64decode(data[names.KUBECONFIG_KEY], validate=True)
        except Base64Error:
            self._reject(member, "is not base64; write it again")
            return
        content = _parsed(text)
        if content is None:
            self._reject(member, "holds no kubeconfig; write it again")
        elif problem := kubeconfigs.problem_in_secret(content):
            self._reject(member, f"is not used: {problem}")
        else:
            await self._use_kubeconfig(member, text, content)

    async def _use_own(self, member: Member) -> None:
        """Reads the kubeconfig file and the files that it names again; the service account renews itself."""
        if self._kubeconfig is None:
            if member.session.client is None:
                member.session.client = await self._connect(member.name, None)
            return
        try:
            text, content = await asyncio.to_thread(_read_file, self._kubeconfig)
        except OSError as err:
            self._reject(member, f"cannot be read: {err.strerror} ({Path(str(err.filename)).name})")
            return
        except UnicodeDecodeError:
            self._reject(member, "names a token file that is no text; write it again")
            return
        if content is None:
            self._reject(member, "holds no kubeconfig; write it again")
            return
        member.runs_program = bool(kubeconfigs.programs(content))
        await self._use_kubeconfig(member, text, content)

    def _reject(self, member: Member, why: str) -> None:
        """Credentials that cannot be used: those from before stay in use while they work."""
        if member.gate.is_open and member.session.client is not None:
            member.note = f"{member.source} {why} (the credentials from before are still used)"
            self._say(member.note)
        else:
            member.gate.shut(f"{member.source} {why}")

    async def _use_kubeconfig(self, member: Member, text: bytes, content: dict[str, Any]) -> None:
        """Replaces the client when the kubeconfig is another one; no word of it gets into a message."""
        fingerprint = hashlib.sha256(text).hexdigest()
        if fingerprint == member.fingerprint and member.session.client is not None:
            member.note = ""
            return
        try:
            client = await self._connect(member.name, content)
        except Invalid as err:
            self._reject(member, redact(f"cannot be used: {err}"))
            return
        old = member.session.client
        if old is not None and member.gate.is_open and not await self._proves_itself(member, client):
            self._retired.add(client.close)
            return
        if member.gate.is_known and not member.gate.is_open and fingerprint != member.fingerprint:
            # Nothing may reach the new server before its identity is known (S11); the probe opens again.
            member.gate.shut(f"{member.source} changed and is being checked")
        member.session.client, member.fingerprint, member.note = client, fingerprint, ""
        if old is not None:
            log.info("%s changed, its client is replaced", member.source, extra={"cluster": member.name})
            self._retired.add(old.close)
            await self.probe(member.name)

    async def _proves_itself(self, member: Member, client: ClusterAccess) -> bool:
        """Asks a new client who it reaches while the old one is still at work, so that a rotation interrupts nothing.

        Another cluster closes the gate (S11); any other failure leaves the old client in use and says so.
        """
        try:
            async with asyncio.timeout(PROBE_LIMIT_SECONDS):
                found = await client.read(NAMESPACE, IDENTITY_NAMESPACE)
            self._check_identity(member, found)
        except WrongCluster as err:
            member.gate.shut(str(err))
            await member.session.close()
        except TimeoutError:
            self._reject(member, f"changed, but {member.name} did not answer the new one")
        except Unauthorized:
            self._reject(member, f"changed, but {member.name} refuses the new one (401); renew it")
        except HublessError as err:
            self._reject(member, redact(f"changed, but the new one does not work: {err}"))
        else:
            return True
        return False

    # --- probing -----------------------------------------------------------------------------------------------------

    async def probe(self, name: str) -> None:
        """Asks the cluster once who it is, and moves its gate by the answer.

        Reading the identity proves more than a look at `/readyz`: server, storage, credentials and the right cluster.
        """
        member = self._members[name]
        client = member.session.client
        if client is None:
            return
        began = time.monotonic()
        version = ""
        error: Exception | None = None
        try:
            async with asyncio.timeout(PROBE_LIMIT_SECONDS):
                found = await client.read(NAMESPACE, IDENTITY_NAMESPACE)
                version = member.gate.version if member.gate.is_open else await client.version()
            self._check_identity(member, found)
        except (TimeoutError, HublessError) as err:
            error = err
        if member.session.client is not client:
            return  # it was replaced meanwhile: what it says proves nothing about the one that is used now
        late = time.monotonic() - began > PROBE_LIMIT_SECONDS + LATE_SECONDS
        if isinstance(error, TimeoutError) and late:
            log.warning("this worker was too busy to ask %s", name, extra={"cluster": name})
        else:
            await self._judge(member, version, error)

    async def _judge(self, member: Member, version: str, error: Exception | None) -> None:
        """Moves the gate by the outcome of one probe."""
        name, gate = member.name, member.gate
        match error:
            case None:
                member.reread_due, member.reread_pause = 0.0, REREAD_SECONDS
                gate.answered(version)
            case TimeoutError():
                gate.failed(f"{name} did not answer in {PROBE_LIMIT_SECONDS:g} s")
            case Unauthorized():
                self._read_again(member)
                gate.shut(f"{name} refuses the credentials (401); renew {member.source}")
            case Forbidden():
                gate.shut(f"{name} forbids reading namespaces; apply deploy/rbac.yaml there for this worker's user")
            case WrongCluster():
                gate.shut(str(error))
                # Open watches must not go on reading another cluster under this name.
                await member.session.close()
            case _:
                gate.failed(redact(str(error)))

    def _read_again(self, member: Member) -> None:
        """After a 401: looks for renewed credentials, ever more slowly while none work."""
        now = time.monotonic()
        if now < member.reread_due:
            return
        member.reread_due = now + member.reread_pause
        member.reread_pause = min(2 * member.reread_pause, max(REREAD_SECONDS, self._refresh_seconds))
        if member.runs_program:
            member.fingerprint = ""
        if member.name != self.own:
            self._refresh_now.set()

    def _check_identity(self, member: Member, found: Object | None) -> None:
        uid = str((found or {}).get("metadata", {}).get("uid", ""))
        if not uid:
            raise ClusterUnreachable(f"{member.name} answers without a namespace {IDENTITY_NAMESPACE}")
        if member.uid and uid != member.uid:
            raise WrongCluster(
                f"{member.source} reaches another cluster (uid {uid}), not {member.name}; fix it, or the clusterUID "
                f"of {member.name} in the ClusterRegistry"
            )

    async def _follow(self, member: Member) -> None:
        """Probes one member for as long as it is one."""
        while True:
            try:
                if member.name == self.own:
                    await self._use_own(member)
                await self.probe(member.name)
            except Invalid as err:
                member.gate.shut(redact(str(err)))
            except Exception as err:
                # A probe that ended would leave the gate as it is for ever.
                log.exception("probe of %s", member.name, extra={"cluster": member.name})
                member.gate.failed(f"{member.name} was not asked: {type(err).__name__}; see the worker's log")
            gate = member.gate
            member.look_now.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(
                    PROBE_AGAIN_SECONDS if gate.is_failing or not gate.is_known else self._probe_seconds
                ):
                    await member.look_now.wait()

    def _start(self, member: Member) -> None:
        if member.task is not None:
            return
        member.gate.on_change(lambda is_open, _: self._report(member, is_open))
        member.task = asyncio.create_task(self._follow(member), name=f"probe-{member.name}")

    def _report(self, member: Member, is_open: bool) -> None:
        extra = {"cluster": member.name}
        if is_open:
            log.info("%s answers (%s)", member.name, member.gate.version, extra=extra)
        else:
            log.warning("%s is closed: %s", member.name, member.gate.error, extra=extra)

    async def _end(self, member: Member) -> None:
        if member.task is not None:
            member.task.cancel()
            await asyncio.gather(member.task, return_exceptions=True)
        await member.session.close()

    async def _stop_all(self) -> None:
        for member in self._members.values():
            await self._end(member)
        await self._retired.close()

    def _say(self, message: str) -> None:
        """Warns once per message: these states last, and are looked at every few seconds."""
        if message not in self._said:
            self._said.add(message)
            log.warning(message)


def _parsed(text: bytes) -> dict[str, Any] | None:
    """The kubeconfig in a text; None when there is none."""
    try:
        content = yaml.safe_load(text)
    except (yaml.YAMLError, UnicodeDecodeError):
        return None
    return content if isinstance(content, dict) else None


def _read_file(path: Path) -> tuple[bytes, dict[str, Any] | None]:
    """A kubeconfig file with what its current context names in other files, so that a changed token file counts.

    Raises OSError for a file that cannot be read.
    """
    content = _parsed(path.read_bytes())
    if content is None:
        return b"", None
    with suppress(Invalid):  # what is missing is said by the client that is made from it
        content = kubeconfigs.only_current(content)
    content = kubeconfigs.inlined(
        content, {name: (path.parent / name).read_bytes() for name in kubeconfigs.files(content)}
    )
    return yaml.safe_dump(content).encode(), content
