"""One S3 store per site: SeaweedFS with its master, volume server, filer and S3 gateway in one process."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from pathlib import Path

from activities.access.s3 import S3Store
from ramen.errors import HublessError
from ramen.names import COORDINATION_BUCKET
from sandbox.processes import Probe, Spec
from sandbox.state import SandboxState

OPERATOR_BUCKET = "ramen"
"""Objects of the dr-cluster operator; the mirror has a bucket of its own (design 8)."""

FRONT = "s3front"
"""Suffix of the process that stands in front of a store that misbehaves."""

VOLUME_MB = 64
"""Size of one of SeaweedFS's data files; the default of 30 GB asks for free space that a small machine lacks."""

GRACE_SECONDS = 3.0
"""After TERM it has written everything within a second, then waits ten for streams between its own parts to end."""

WRITABLE_SECONDS = 90.0
"""The gateway answers before a volume can take data; three seconds are normal."""


def spec(state: SandboxState, cluster: str, weed: Path) -> Spec:
    """The process `<cluster>-s3`; writes its credentials file."""
    ports = state.clusters[cluster].ports
    data = state.directory / "data" / cluster / "s3"
    data.mkdir(parents=True, exist_ok=True)
    credentials = data.parent / "s3.json"
    credentials.touch(mode=0o600)
    credentials.write_text(
        json.dumps(
            {
                "identities": [
                    {
                        "name": "hubless",
                        "credentials": [{"accessKey": state.s3_access_key, "secretKey": state.s3_secret_key}],
                        "actions": ["Admin", "Read", "Write", "List", "Tagging"],
                    }
                ]
            }
        )
    )
    arguments = [
        "server",
        "-ip=127.0.0.1",
        "-ip.bind=127.0.0.1",
        f"-dir={data}",
        "-filer",
        "-s3",
        f"-s3.config={credentials}",
        f"-master.port={ports['weed-master']}",
        f"-master.port.grpc={ports['weed-master-grpc']}",
        f"-master.volumeSizeLimitMB={VOLUME_MB}",
        # Alone as it is, the master still waits this long for a rival before it leads again; the default is 10 s.
        "-master.electionTimeout=1s",
        "-master.telemetry=false",
        f"-volume.port={ports['weed-volume']}",
        f"-volume.port.grpc={ports['weed-volume-grpc']}",
        "-volume.max=100",
        # The default waits ten seconds before it ends.
        "-volume.preStopSeconds=0",
        f"-filer.port={ports['weed-filer']}",
        f"-filer.port.grpc={ports['weed-filer-grpc']}",
        # Default: a socket in the common temporary directory.
        f"-filer.localSocket={data.parent / 'filer.sock'}",
        f"-s3.localSocket={data.parent / 's3.sock'}",
        f"-s3.port={ports['s3']}",
        f"-s3.port.grpc={ports['s3-grpc']}",
        # Both have fixed default ports, on which two stores would collide.
        "-s3.port.iceberg=0",
        "-s3.port.lance=0",
    ]
    probe = Probe(port=ports["s3"], path="/healthz")
    argv = [str(weed), "-logtostderr=true", *arguments]
    return Spec(name=f"{cluster}-s3", argv=argv, probe=probe, grace=GRACE_SECONDS)


def behind(spec: Spec, state: SandboxState, cluster: str) -> Spec:
    """The same server, and its gateway on another port, so that something can stand in front of it."""
    ports = state.clusters[cluster].ports
    moved = {f"-s3.port={ports['s3']}": f"-s3.port={ports['s3-behind']}"}
    argv = [moved.get(argument, argument) for argument in spec.argv]
    return spec.model_copy(update={"argv": argv, "probe": Probe(port=ports["s3-behind"], path="/healthz")})


def front(state: SandboxState, cluster: str) -> Spec:
    """The process `<cluster>-s3front`, which takes the store's place and plays the faults that are ordered."""
    ports = state.clusters[cluster].ports
    options = {"dir": state.directory, "cluster": cluster, "port": ports["s3"], "target": ports["s3-behind"]}
    given = [text for name, value in options.items() for text in (f"--{name}", str(value))]
    return Spec(
        name=f"{cluster}-{FRONT}",
        argv=[sys.executable, "-m", "sandbox.storefaults", *given],
        probe=Probe(port=ports["s3"]),
    )


def store(state: SandboxState, cluster: str, bucket: str, port: str = "s3") -> S3Store:
    """A client of one bucket; the caller closes it."""
    return S3Store.connect(
        endpoint=f"http://127.0.0.1:{state.clusters[cluster].ports[port]}",
        bucket=bucket,
        access_key=state.s3_access_key,
        secret_key=state.s3_secret_key,
        name=f"s3-{cluster}",
    )


async def ensure_buckets(state: SandboxState, cluster: str, port: str = "s3") -> None:
    """Creates both buckets and waits until they take data; raises the store's last error after 30 s."""
    for bucket in (OPERATOR_BUCKET, COORDINATION_BUCKET):
        client = store(state, cluster, bucket, port)
        try:
            await _until_writable(client)
        finally:
            await client.close()


async def empty(state: SandboxState, cluster: str) -> int:
    """Deletes every object of both buckets, which stay; how many there were."""
    number = 0
    for bucket in (OPERATOR_BUCKET, COORDINATION_BUCKET):
        client = store(state, cluster, bucket)
        try:
            keys = await client.list("")
            await asyncio.gather(*(client.delete(key) for key in keys))
            number += len(keys)
        finally:
            await client.close()
    return number


async def _until_writable(client: S3Store) -> None:
    limit = time.monotonic() + WRITABLE_SECONDS
    while True:
        try:
            await client.ensure_bucket()
            await client.put(".hubless", b"")
            return await client.delete(".hubless")
        except HublessError:
            if time.monotonic() > limit:
                raise
            await asyncio.sleep(0.2)
