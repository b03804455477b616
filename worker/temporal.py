"""The connection to Temporal, made again and again until it stands, and its health from then on."""

from __future__ import annotations

import asyncio
import logging
from datetime import UTC, datetime, timedelta

from temporalio.api.enums.v1 import TaskQueueType
from temporalio.api.taskqueue.v1 import TaskQueue
from temporalio.api.workflowservice.v1 import DescribeTaskQueueRequest
from temporalio.client import Client
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.envconfig import ClientConfig, ClientConnectConfig
from temporalio.runtime import Runtime
from temporalio.service import RPCError

from ramen import names
from worker import bootstrap

log = logging.getLogger(__name__)

FIRST_PAUSE_SECONDS = 1.0
LAST_PAUSE_SECONDS = 15.0
"""Between attempts to connect: a server that starts beside us is met at once, one that is away is not hammered."""

CHECK_SECONDS = 10.0
"""Between looks at a connection that stands; only `/readyz` and the log depend on it, workers retry by themselves."""


CHECK_LIMIT = timedelta(seconds=3)

POLLED_SECONDS = 75
"""A worker that lives polls again within one minute, the length of a long poll; older pollers are gone."""


class ConfigurationError(Exception):
    """`TEMPORAL_*` or the profile file cannot be used; the text is one line."""


def configuration() -> ClientConnectConfig:
    """Reads the address, namespace and credentials as the `temporal` command line does.

    Raises `ConfigurationError`.
    """
    try:
        config = ClientConfig.load_client_connect_config()
    except (RuntimeError, ValueError) as err:
        raise ConfigurationError(f"Temporal's configuration cannot be used: {err}; see TEMPORAL_PROFILE") from None
    config.setdefault("target_host", "127.0.0.1:7233")
    config.setdefault("namespace", names.TEMPORAL_NAMESPACE)
    return config


async def connect(identity: str, runtime: Runtime) -> Client:
    """A client of a namespace that is prepared for our workflows; tries until it succeeds or is cancelled.

    Raises `ConfigurationError` and `bootstrap.NotPreparedError`, which no further attempt can heal.
    """
    config = configuration()
    address, pause = config["target_host"], FIRST_PAUSE_SECONDS
    while True:
        try:
            client = await Client.connect(
                **config, data_converter=pydantic_data_converter, identity=identity, runtime=runtime
            )
            for added in await bootstrap.prepare(client):
                log.info("added to Temporal: %s", added)
            log.info("connected to Temporal at %s, namespace %s", address, client.namespace)
            return client
        except (RPCError, RuntimeError) as err:
            reason = str(err).splitlines()[0] if str(err) else type(err).__name__
            log.warning("Temporal does not answer at %s (%s); next attempt in %.0f s", address, reason, pause)
        await asyncio.sleep(pause)
        pause = min(pause * 2, LAST_PAUSE_SECONDS)


class Connection:
    """Whether Temporal answers now."""

    def __init__(self, client: Client) -> None:
        self.is_up = True
        self._client = client

    async def follow(self) -> None:
        """Looks every `CHECK_SECONDS` until cancelled; logs when Temporal goes and returns.

        The look prepares the namespace again: the Temporal that answers may be another one, a standby or an empty one
        that was started after a loss (design 9). Raises `bootstrap.NotPreparedError`.
        """
        while True:
            await asyncio.sleep(CHECK_SECONDS)
            up, reason = True, ""
            try:
                for added in await bootstrap.prepare(self._client):
                    log.info("added to Temporal: %s", added)
            except RPCError as err:
                up, reason = False, err.message
            if up and not self.is_up:
                log.info("Temporal answers again")
            elif self.is_up and not up:
                log.warning("Temporal does not answer: %s. No action starts until it does", reason)
            self.is_up = up


async def workers(client: Client, queue: str) -> list[str] | None:
    """Identities of the workers that poll a queue for activities, sorted; None when Temporal does not say."""
    request = DescribeTaskQueueRequest(
        namespace=client.namespace,
        task_queue=TaskQueue(name=queue),
        task_queue_type=TaskQueueType.TASK_QUEUE_TYPE_ACTIVITY,
    )
    try:
        answer = await client.workflow_service.describe_task_queue(request, timeout=CHECK_LIMIT)
    except RPCError:
        return None
    newest = datetime.now(UTC) - timedelta(seconds=POLLED_SECONDS)
    return sorted(
        {
            poller.identity
            for poller in answer.pollers
            if poller.last_access_time.ToDatetime().replace(tzinfo=UTC) >= newest
        }
    )
