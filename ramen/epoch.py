"""The epoch: one number and one random token per action, which no older action can outlive (S1).

The token tells two claims of the same number apart: a Temporal database that was copied and run twice counts both
halves to the same number, and only one of them may write.
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict

from ramen.errors import StaleEpoch
from ramen.names import EPOCH

DIGITS = 9
"""Of an epoch's number; what is longer nobody of us wrote."""


class Epoch(BaseModel):
    """`number` grows by one with each action of an application; `token` is made by the claiming activity."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    number: int
    token: str

    def __str__(self) -> str:
        return f"{self.number}.{self.token}"

    @classmethod
    def parse(cls, text: str | None) -> Epoch | None:
        """Reads `<number>.<token>`; None for a missing or unreadable value, which no epoch is ever equal to."""
        number, dot, token = (text or "").partition(".")
        is_number = number.isascii() and number.isdecimal() and len(number) <= DIGITS
        return cls(number=int(number), token=token) if dot and token and is_number else None

    @classmethod
    def of(cls, obj: dict[str, Any] | None) -> Epoch | None:
        """The epoch stamped on a Kubernetes object; None for no object or no stamp."""
        return cls.parse(((obj or {}).get("metadata", {}).get("annotations") or {}).get(EPOCH))


def check_write(mine: Epoch, found: Epoch | None, what: str) -> None:
    """Refuses a write under `mine` to an object that carries `found` (S1).

    Raises `StaleEpoch` when the object's number is higher, or equal with another token; an object without an epoch
    belongs to nobody yet and may be written.
    """
    if found is None or found.number < mine.number or found == mine:
        return
    newer = "a newer action" if found.number > mine.number else "another action of the same number"
    raise StaleEpoch(
        f"{what} carries epoch {found.number} of {newer}; this one is epoch {mine.number}. Nothing was written."
    )


def is_foreign(found: Epoch | None, issued: list[Epoch]) -> bool:
    """Whether an object carries an epoch that this entity did not issue: its answer is to stop, never to outbid."""
    if found is None or found in issued:
        return False
    newest = max((epoch.number for epoch in issued), default=0)
    # Epochs older than the remembered ones were ours before the list was cut, or belong to an earlier protection.
    return found.number >= newest or any(epoch.number == found.number for epoch in issued)
