"""Typed search attributes, by which an operator filters the list in Temporal Web."""

from __future__ import annotations

from temporalio.common import SearchAttributeKey, SearchAttributePair, TypedSearchAttributes

APP = SearchAttributeKey.for_keyword("HublessApp")
NAMESPACE = SearchAttributeKey.for_keyword("HublessNamespace")
ACTION = SearchAttributeKey.for_keyword("HublessAction")
CLUSTER = SearchAttributeKey.for_keyword("HublessCluster")
PHASE = SearchAttributeKey.for_keyword("HublessPhase")
PLAN = SearchAttributeKey.for_keyword("HublessPlan")
EPOCH = SearchAttributeKey.for_int("HublessEpoch")

KEYWORDS: tuple[str, ...] = tuple(key.name for key in (APP, NAMESPACE, ACTION, CLUSTER, PHASE, PLAN))
INTEGERS: tuple[str, ...] = (EPOCH.name,)


def of_action(namespace: str, name: str, action: str, cluster: str, phase: str, epoch: int) -> TypedSearchAttributes:
    """Attributes of one action's row."""
    return TypedSearchAttributes(
        [
            SearchAttributePair(APP, name),
            SearchAttributePair(NAMESPACE, namespace),
            SearchAttributePair(ACTION, action),
            SearchAttributePair(CLUSTER, cluster),
            SearchAttributePair(PHASE, phase),
            SearchAttributePair(EPOCH, epoch),
        ]
    )
