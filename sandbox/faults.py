"""Faults to order: one small file in the sandbox's directory, written by `hubless sandbox fault`, read by stand-ins.

Stopping, freezing and restarting of processes is done to the processes themselves; this file carries only what the
stand-ins have to play: lost sites, broken replication, a promotion that hangs, a store that lies.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

FILE = "faults.json"


class StoreFault(BaseModel):
    """What a store does wrong (`sandbox.storefaults`); an empty object is a store as it should be."""

    model_config = ConfigDict(extra="forbid")

    bucket: str = ""
    """Only requests to this bucket meet the fault; empty: all."""
    slow: float = Field(default=0.0, ge=0)
    """Seconds by which every answer is late."""
    trickle: bool = False
    """Answers come byte by byte and do not end in time."""
    full: Literal["", "minio", "ceph", "busy"] = ""
    """No write is taken, and this kind of store says so; deletions are."""
    read_only: bool = False
    """Neither writes nor deletions are allowed."""
    conditions: Literal["", "refused", "ignored"] = ""
    """Conditional writes are not implemented: the store says so, or takes them as plain ones."""
    lying: bool = False
    """Writes are acknowledged, whatever their conditions, and nothing is kept."""
    page: bool = False
    """Every request is answered with 200 and a page in HTML, as by a balancer whose store is away."""


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
    array_clock: float = 0.0
    """Seconds by which the clock is wrong with which the array dates its syncs; the clusters' clocks stay right."""
    stores: dict[str, StoreFault] = {}
    """By cluster: what its store does wrong, once something stands in front of it (`sandbox.sites.spoil_store`)."""


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
