"""What an adoption takes over of the VRG that a hub made, and what it refuses because it is not carried."""

from __future__ import annotations

from typing import Any

import pytest

from activities.surveying import _drpc, _refuse_unsupported
from ramen import names
from ramen.app import AppRef, Observed
from ramen.desired import slim
from ramen.errors import Refused
from workflows.adoption import replicated_by_volsync, request_of
from workflows.inputs import AdoptRequest


def of_a_hub(annotations: dict[str, str] | None = None, **spec: Any) -> Observed:
    """A hub's Primary VRG as it travels through a history."""
    return Observed(
        cluster="dr1",
        vrg=slim(
            {
                "metadata": {
                    "name": "shop",
                    "namespace": "web",
                    "annotations": {names.DRPC_UID: "uid", **(annotations or {})},
                },
                "spec": {"replicationState": "primary", "pvcSelector": {"matchLabels": {"app": "shop"}}, **spec},
                "status": {"protectedPVCs": [{"name": "data-0"}, {"name": "data-1", "protectedByVolSync": True}]},
            }
        ),
    )


GIVEN = AdoptRequest(app=AppRef(namespace="web", name="shop"), policy="gold")


@pytest.mark.parametrize(
    ("look", "says"),
    [
        (of_a_hub(kubeObjectProtection={"captureInterval": "5m"}), "kubeObjectProtection"),
        (of_a_hub(protectedNamespaces=["web", "db"]), "protectedNamespaces"),
        (of_a_hub({names.DRPC_PREFIX + "is-cg-enabled": "true"}), "is-cg-enabled"),
        (of_a_hub({names.DRPC_PREFIX + "use-volsync-for-pvc-protection": "true"}), "VolSync"),
    ],
    ids=["objects", "namespaces", "groups", "volsync"],
)
def test_what_a_write_would_take_away_is_refused(look: Observed, says: str) -> None:
    request = request_of(GIVEN, [look])
    assert request is not None
    with pytest.raises(Refused, match=says):
        _refuse_unsupported(_drpc(request))


def test_a_plain_application_is_taken_over_with_its_switches() -> None:
    switch = names.DRPC_PREFIX + "enable-diff"
    request = request_of(GIVEN, [of_a_hub({switch: "true"})])
    assert request is not None
    _refuse_unsupported(_drpc(request))
    assert request.annotations == {switch: "true"}
    assert request.uid == "uid"
    assert request.spec["pvcSelector"] == {"matchLabels": {"app": "shop"}}


def test_volumes_that_volsync_replicates_are_named() -> None:
    assert replicated_by_volsync([of_a_hub()]) == ["data-1"]
