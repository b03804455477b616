"""S3 profiles of the operator's configuration become clients, and only change when they change."""

from __future__ import annotations

import logging
from base64 import b64encode
from collections.abc import AsyncIterator
from typing import Any

import pytest

from activities.access.protocol import Object
from ramen import names
from tests.worker.fakes import operator_config
from worker.stores import Stores

SECRET_VALUE = "hunter2-secret"


def profile(name: str = "s3-dr1", **changes: Any) -> dict[str, Any]:
    return {
        "s3ProfileName": name,
        "s3Bucket": "ramen",
        "s3CompatibleEndpoint": "http://127.0.0.1:9",
        "s3Region": "us-east-1",
        "s3SecretRef": {"name": f"{name}-secret", "namespace": names.RAMEN_NAMESPACE},
    } | changes


def secret(name: str = "s3-dr1", value: str = SECRET_VALUE) -> Object:
    data = {"AWS_ACCESS_KEY_ID": "user", "AWS_SECRET_ACCESS_KEY": value}
    return {
        "metadata": {"name": f"{name}-secret", "namespace": names.RAMEN_NAMESPACE},
        "data": {key: b64encode(text.encode()).decode() for key, text in data.items()},
    }


@pytest.fixture
async def stores() -> AsyncIterator[Stores]:
    made = Stores("coordination")
    yield made
    await made.close()


async def test_each_profile_has_both_buckets_in_the_order_of_the_configuration(stores: Stores) -> None:
    stores.update(operator_config(profile("s3-dr2"), profile("s3-dr1")), [secret("s3-dr1"), secret("s3-dr2")])
    assert list(stores.operator) == ["s3-dr2", "s3-dr1"]
    assert [stores.operator["s3-dr1"].bucket, stores.coordination["s3-dr1"].bucket] == ["ramen", "coordination"]


async def test_clients_are_kept_while_nothing_changes(stores: Stores) -> None:
    stores.update(operator_config(profile()), [secret()])
    kept = stores.operator["s3-dr1"]
    stores.update(operator_config(profile()), [secret()])
    assert stores.operator["s3-dr1"] is kept


@pytest.mark.parametrize(
    ("changed", "credential"),
    [(profile(s3Bucket="other"), SECRET_VALUE), (profile(), "renewed")],
    ids=["bucket", "credential"],
)
async def test_a_change_makes_new_clients_in_the_same_mapping(
    stores: Stores, changed: dict[str, Any], credential: str
) -> None:
    stores.update(operator_config(profile()), [secret()])
    old, mapping = stores.operator["s3-dr1"], stores.operator
    stores.update(operator_config(changed), [secret(value=credential)])
    assert stores.operator is mapping
    assert mapping["s3-dr1"] is not old


async def test_profile_that_is_gone_is_dropped(stores: Stores) -> None:
    stores.update(operator_config(profile()), [secret()])
    stores.update(operator_config(), [secret()])
    assert (stores.operator, stores.coordination) == ({}, {})


@pytest.mark.parametrize(
    ("given", "secrets", "words"),
    [
        (profile(), [], "Secret ramen-system/s3-dr1-secret is missing"),
        (profile(s3SecretRef={"name": "x", "namespace": "other"}), [secret()], "namespace other"),
        (profile(s3CompatibleEndpoint=""), [secret()], "endpoint or bucket is missing"),
    ],
)
async def test_unusable_profile_is_named_once_and_leaves_the_others(
    stores: Stores, given: dict[str, Any], secrets: list[Object], words: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            stores.update(operator_config(given, profile("s3-dr2")), [*secrets, secret("s3-dr2")])
    assert list(stores.operator) == ["s3-dr2"]
    assert caplog.text.count(words) == 1
    assert SECRET_VALUE not in caplog.text


async def test_unreadable_configuration_leaves_the_last_known(stores: Stores, caplog: pytest.LogCaptureFixture) -> None:
    stores.update(operator_config(profile()), [secret()])
    broken = operator_config()
    broken["data"][names.RAMEN_CONFIG_KEY] = "s3StoreProfiles: [{"
    for config in (broken, None):
        stores.update(config, [secret()])
    assert list(stores.operator) == ["s3-dr1"]


async def test_credentials_show_in_no_text_of_the_client(stores: Stores) -> None:
    stores.update(operator_config(profile()), [secret()])
    assert SECRET_VALUE not in repr(stores._profiles)
