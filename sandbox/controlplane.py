"""The real control plane of one cluster, as processes: etcd, API server, controllers, scheduler, and KWOK's nodes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sandbox.pki import Pki, write_kubeconfigs
from sandbox.processes import TERM_SECONDS, Probe, Spec
from sandbox.state import SandboxState
from sandbox.tools import Tool

MANIFESTS = Path(__file__).parent / "manifests"

CONTROLLERS = (
    "clusterrole-aggregation-controller",
    "deployment-controller",
    "garbage-collector-controller",
    "job-controller",
    "namespace-controller",
    "node-lifecycle-controller",
    "persistentvolume-binder-controller",
    "persistentvolume-protection-controller",
    "persistentvolumeclaim-protection-controller",
    "pod-garbage-collector-controller",
    "replicaset-controller",
    "serviceaccount-controller",
    "statefulset-controller",
    "taint-eviction-controller",
)
"""What applications, volumes and namespaces need. The rest would only watch, and cost memory. Attachments are left
out on purpose: no node mounts anything, and an attachment nobody removes would hold a demotion up (vrg.md 6.5)."""


APISERVER_GRACE = 1.0
"""It keeps nothing itself, and would wait for open connections to end."""

NODE_LEASE_SECONDS = 8
"""A KWOK that returns is another holder of its nodes' leases and leaves their pods alone until the old ones run out. A
kubelet that returns is the same holder and acts at once, so this is shorter than any outage of interest."""


def audit_log(directory: Path, cluster: str) -> Path:
    """What workers asked of a cluster's API server, one JSON object a line; only with the option `audit`."""
    return directory / "logs" / f"{cluster}-audit.jsonl"


@dataclass(frozen=True)
class ControlPlane:
    """Specs of one cluster's processes, named `<cluster>-<part>`."""

    state: SandboxState
    cluster: str
    tools: dict[Tool, Path]

    def prepare(self) -> None:
        """Writes certificates and kubeconfigs; what exists stays."""
        cluster = self.state.clusters[self.cluster]
        self._pki.ensure(cluster)
        write_kubeconfigs(cluster, self._pki.file("ca.crt"), self.state.directory / "kubeconfigs")

    def etcd(self) -> Spec:
        """etcd without fsync: a sandbox survives the end of its processes, not of the machine, and starts faster."""
        ports = self._ports
        client, peer = f"http://127.0.0.1:{ports['etcd']}", f"http://127.0.0.1:{ports['etcd-peer']}"
        return self._spec(
            "etcd",
            Tool.ETCD,
            [
                f"--data-dir={self.state.directory / 'data' / self.cluster / 'etcd'}",
                f"--listen-client-urls={client}",
                f"--advertise-client-urls={client}",
                f"--listen-peer-urls={peer}",
                f"--initial-advertise-peer-urls={peer}",
                f"--initial-cluster=default={peer}",
                "--unsafe-no-fsync",
                "--log-level=warn",
            ],
            Probe(port=ports["etcd"], path="/health"),
        )

    def apiserver(self) -> Spec:
        """kube-apiserver on the loopback; it has no endpoints to reconcile, and refuses a loopback one otherwise."""
        ports = self._ports
        return self._spec(
            "apiserver",
            Tool.KUBE_APISERVER,
            [
                f"--etcd-servers=http://127.0.0.1:{ports['etcd']}",
                "--bind-address=127.0.0.1",
                f"--secure-port={ports['api']}",
                f"--tls-cert-file={self._pki.file('server.crt')}",
                f"--tls-private-key-file={self._pki.file('server.key')}",
                f"--token-auth-file={self._pki.file('tokens.csv')}",
                "--authorization-mode=RBAC",
                "--service-account-issuer=https://kubernetes.default.svc",
                f"--service-account-signing-key-file={self._pki.file('sa.key')}",
                f"--service-account-key-file={self._pki.file('sa.pub')}",
                "--service-cluster-ip-range=10.96.0.0/16",
                "--endpoint-reconciler-type=none",
                "--profiling=false",
                *self._audit(),
            ],
            Probe(port=ports["api"], path="/readyz", tls=True),
            grace=APISERVER_GRACE,
        )

    def _audit(self) -> list[str]:
        """Arguments that make the API server write down what workers ask of it."""
        if not self.state.options.audit:
            return []
        return [
            f"--audit-policy-file={MANIFESTS / 'audit-policy.yaml'}",
            f"--audit-log-path={audit_log(self.state.directory, self.cluster)}",
            "--audit-log-mode=batch",
        ]

    def followers(self) -> list[Spec]:
        """What needs the API server: controllers, scheduler, nodes."""
        ports = self._ports
        return [
            self._spec(
                "controller-manager",
                Tool.KUBE_CONTROLLER_MANAGER,
                [
                    f"--kubeconfig={self._kubeconfig('controller-manager')}",
                    f"--controllers={','.join(CONTROLLERS)}",
                    f"--service-account-private-key-file={self._pki.file('sa.key')}",
                    "--use-service-account-credentials=false",
                    "--bind-address=127.0.0.1",
                    f"--secure-port={ports['controller-manager']}",
                    "--leader-elect=false",
                    # Default 15 s: the time between a volume's creation and its binding when an event was missed.
                    "--pvclaimbinder-sync-period=2s",
                    "--profiling=false",
                ],
                Probe(port=ports["controller-manager"], path="/healthz", tls=True),
            ),
            self._spec(
                "scheduler",
                Tool.KUBE_SCHEDULER,
                [
                    f"--kubeconfig={self._kubeconfig('scheduler')}",
                    "--bind-address=127.0.0.1",
                    f"--secure-port={ports['scheduler']}",
                    "--leader-elect=false",
                    "--profiling=false",
                ],
                Probe(port=ports["scheduler"], path="/healthz", tls=True),
            ),
            self._spec(
                "kwok",
                Tool.KWOK,
                [
                    f"--kubeconfig={self._kubeconfig('kwok')}",
                    f"--config={MANIFESTS / 'kwok-stages.yaml'}",
                    "--manage-nodes-with-annotation-selector=kwok.x-k8s.io/node=fake",
                    "--node-ip=10.0.0.1",
                    "--cidr=10.244.0.0/16",
                    f"--node-lease-duration-seconds={NODE_LEASE_SECONDS}",
                    f"--server-address=127.0.0.1:{ports['kwok']}",
                    "--v=WARN",
                ],
                Probe(port=ports["kwok"], path="/healthz"),
            ),
        ]

    @property
    def _pki(self) -> Pki:
        return Pki(self.state.directory / "pki" / self.cluster)

    @property
    def _ports(self) -> dict[str, int]:
        return self.state.clusters[self.cluster].ports

    def _kubeconfig(self, user: str) -> Path:
        return self.state.kubeconfig(self.cluster, user)

    def _spec(self, part: str, tool: Tool, arguments: list[str], probe: Probe, grace: float = TERM_SECONDS) -> Spec:
        argv = [str(self.tools[tool]), *arguments]
        return Spec(name=f"{self.cluster}-{part}", argv=argv, probe=probe, grace=grace)
