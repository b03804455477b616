"""Exit codes of `hubless adopt` after a person consented."""

from __future__ import annotations

import pytest

from ramen.app import AppRef
from ramen.recovery import Inference, Verdict
from starter.client import Hubless
from starter.commands import adopt
from workflows.inputs import AdoptRequest, AdoptResult

SHOWN = Inference(verdict=Verdict.ADOPT, serving="dr1", why="dr1 is Primary", plan="hold it again")


class Answering:
    """Infers the same each time, and holds the application again or does not."""

    def __init__(self, adopts: bool) -> None:
        self.adopts = adopts
        self.asked: list[AdoptRequest] = []

    async def adopt(self, request: AdoptRequest) -> AdoptResult:
        self.asked.append(request)
        return AdoptResult(inference=SHOWN, adopted=self.adopts and request.consent)


@pytest.mark.parametrize(("adopts", "code"), [(True, 0), (False, 1)])
async def test_the_exit_code_says_whether_it_was_adopted(
    monkeypatch: pytest.MonkeyPatch, adopts: bool, code: int
) -> None:
    answering = Answering(adopts)

    async def connect() -> Answering:
        return answering

    monkeypatch.setattr(Hubless, "connect", connect)
    request = AdoptRequest(app=AppRef(namespace="web", name="shop"))
    assert await adopt._adopt(request, False, True, adopt.Output.TEXT) == code
    assert [each.shown for each in answering.asked] == [None, SHOWN], "consent is to what was shown"
