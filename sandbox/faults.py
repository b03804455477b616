"""Faults to order: one small file in the sandbox's directory, written by `hubless sandbox fault`, read by stand-ins.

Stopping, freezing and restarting of processes is done to the processes themselves; this file carries only what the
stand-ins have to play: lost sites, broken replication, a promotion that hangs.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

FILE = "faults.json"


class Faults(BaseModel):
    """What is broken now; an empty object is a healthy sandbox."""

    model_config = ConfigDict(extra="forbid")

    lost: list[str] = []
    """Clusters whose site is gone: their pods write nothing, their array side answers nobody."""
    cut_off: list[str] = []
    """Clusters nobody reaches, but whose applications go on writing; replication to and from them stands still."""
    replication: Literal["ok", "paused"] = "ok"
    """`paused`: no sync completes between the two sides."""
    promotion: dict[str, Literal["hang", "fail"]] = {}
    """By cluster: promotions of volumes never complete, or are refused."""
    demotion: dict[str, Literal["hang"]] = {}
    """By cluster: demotions never complete."""
    resync: dict[str, Literal["hang"]] = {}
    """By cluster: resynchronisations never end."""


def load(directory: Path) -> Faults:
    """The faults in force; a missing file means none."""
    try:
        return Faults.model_validate_json((directory / FILE).read_text())
    except FileNotFoundError:
        return Faults()


def save(directory: Path, faults: Faults) -> None:
    """Replaces the file in one step, so that no reader sees half of it."""
    temporary = directory / f"{FILE}.new"
    temporary.write_text(faults.model_dump_json(indent=2))
    os.replace(temporary, directory / FILE)
