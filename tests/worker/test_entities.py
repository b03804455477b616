"""What a request to an application's workflow failed with, as the copies of its DRPC say it."""

from __future__ import annotations

import pytest
from temporalio.client import WorkflowUpdateFailedError
from temporalio.exceptions import ApplicationError

from ramen.errors import ClusterUnreachable, HublessError, Refused
from worker.entities import NoAnswer, unanswered


@pytest.mark.parametrize(
    ("type_", "expected"),
    [("Refused", Refused), ("Boom", Refused), ("Conflict", ClusterUnreachable), ("UnprocessedUpdate", NoAnswer)],
    ids=["a refusal", "unknown by name", "a cluster's failure", "no worker got to see it: nobody refused it"],
)
def test_what_an_update_failed_with(type_: str, expected: type[HublessError]) -> None:
    failed = WorkflowUpdateFailedError(ApplicationError("why", type=type_, non_retryable=True))
    assert type(unanswered(failed)) is expected
