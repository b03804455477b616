"""What a request to an application's workflow failed with, as the copies of its DRPC say it."""

from __future__ import annotations

from typing import Any

import pytest
from temporalio.client import WorkflowUpdateFailedError
from temporalio.exceptions import ApplicationError

from ramen.app import AppSpec
from ramen.errors import ClusterUnreachable, HublessError, Refused
from tests.worker.test_drpcs import APP
from worker.entities import Entities, NoAnswer, unanswered
from workflows.inputs import AppState, StatusView


@pytest.mark.parametrize(
    ("type_", "expected"),
    [("Refused", Refused), ("Boom", Refused), ("Conflict", ClusterUnreachable), ("UnprocessedUpdate", NoAnswer)],
    ids=["a refusal", "unknown by name", "a cluster's failure", "no worker got to see it: nobody refused it"],
)
def test_what_an_update_failed_with(type_: str, expected: type[HublessError]) -> None:
    failed = WorkflowUpdateFailedError(ApplicationError("why", type=type_, non_retryable=True))
    assert type(unanswered(failed)) is expected


class Asked:
    """A Temporal client whose one workflow answers the query, as far as `Entities.ask` speaks to it."""

    def __init__(self, view: StatusView) -> None:
        self.view = view

    def get_workflow_handle(self, workflow_id: str) -> Asked:
        return self

    async def query(self, name: str, **more: Any) -> StatusView:
        return self.view


@pytest.mark.parametrize("app", [APP, None], ids=["protected", "not protected yet"])
async def test_the_request_that_is_being_looked_into_is_known(app: AppSpec | None) -> None:
    told = StatusView(
        drpc={}, hubless={}, state=AppState(namespace="web", name="shop", app=app), answering="kubectl/dr1/u/4"
    )
    entities = Entities(Asked(told), None)  # type: ignore[arg-type]
    known, _ = await entities.ask("web", "shop")
    assert known.answering == "kubectl/dr1/u/4"
