"""Following an action that was accepted: whoever falls silent meanwhile, nobody says that it did not begin."""

from __future__ import annotations

import pytest

from ramen.app import ActionKind
from starter import follow
from starter.failures import NoWorker, Stopped, Unreachable
from starter.follow import exit_code
from workflows.inputs import ActionResult, Answer, Outcome, StepsView

ANSWER = Answer(action=ActionKind.FAILOVER, workflow_id="drpc/web/shop/failover-2", epoch=2, message="Failover started")
DONE = ActionResult(action=ActionKind.FAILOVER, outcome=Outcome.DONE)


class Flaky:
    """What the command line asks, of a Temporal that is away for the first questions."""

    def __init__(self, silence: Stopped, times: int) -> None:
        self.silence, self.left = silence, times

    def _answer(self) -> None:
        if self.left:
            self.left -= 1
            raise self.silence

    async def result(self, workflow_id: str) -> ActionResult:
        self._answer()
        return DONE

    async def steps(self, workflow_id: str) -> StepsView:
        self._answer()
        return StepsView(title="Failover", phase="", steps=[], point_of_no_return_passed=False)

    async def obstacle(self, workflow_id: str) -> str:
        return ""


@pytest.mark.parametrize(
    ("silence", "words"),
    [
        (Unreachable("Temporal does not answer. Nothing was started."), "Temporal does not answer; the action goes on"),
        (NoWorker("No worker answers"), "No worker answers; the action goes on"),
    ],
    ids=["Temporal", "workers"],
)
async def test_a_silence_in_the_middle_ends_nothing(
    silence: Stopped, words: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(follow, "POLL_SECONDS", 0.01)
    times = 5 if isinstance(silence, Unreachable) else 1
    flaky = Flaky(silence, times)
    if isinstance(silence, NoWorker):
        flaky.result = _done  # type: ignore[method-assign]
    result = await follow.follow(flaky, ANSWER, "shop -n web", 20)  # type: ignore[arg-type]
    assert exit_code(result) == 0
    said = capsys.readouterr().err
    assert said.count(words) == 1
    assert "Nothing was started" not in said


async def _done(workflow_id: str) -> ActionResult:
    return DONE
