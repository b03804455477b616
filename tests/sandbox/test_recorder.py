"""The recording dates a version by when it was written, and forgets what was judged."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Any

from ramen.kinds import VRG
from sandbox.invariants import KNOWN, Version
from sandbox.recorder import Recorder, written_at


def obj(seconds_ago: float, uid: str = "u1", namespace: str = "web") -> dict[str, Any]:
    """An object whose newest write was some seconds ago."""
    at = datetime.fromtimestamp(time.time() - seconds_ago, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return {"metadata": {"namespace": namespace, "uid": uid, "managedFields": [{"time": at}]}}


def test_a_version_that_a_busy_machine_brought_late_has_the_time_of_its_write() -> None:
    recorder = Recorder()
    recorder._add("dr1", VRG, "MODIFIED", obj(seconds_ago=60))
    assert time.time() - 61 <= recorder.versions[0].at <= time.time() - 58


def test_a_version_is_never_dated_after_its_arrival() -> None:
    recorder = Recorder()
    recorder._add("dr1", VRG, "MODIFIED", obj(seconds_ago=0))
    assert recorder.versions[0].at <= time.time()
    assert written_at({"metadata": {}}) <= time.time()


def test_what_is_kept_counts_as_known_from_the_beginning() -> None:
    recorder = Recorder()
    recorder.versions = [
        Version(100.0, "dr1", "VolumeReplicationGroup", "MODIFIED", obj(0, "u1")),
        Version(200.0, "dr1", "VolumeReplicationGroup", "MODIFIED", obj(0, "u1")),
        Version(250.0, "dr1", "VolumeReplicationGroup", "DELETED", obj(0, "u2")),
        Version(300.0, "dr1", "VolumeReplicationGroup", "MODIFIED", obj(0, "u3", namespace="other")),
    ]
    recorder.forget("web")
    assert [(version.at, version.key[1]) for version in recorder.of("web")] == [(100.0, "u1")]
    assert [version.event for version in recorder.of("web")] == [KNOWN]
    assert len(recorder.of("other")) == 1
