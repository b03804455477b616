"""The S3 profiles of the operator's configuration: what can be used, and why the rest cannot."""

from __future__ import annotations

from base64 import b64encode
from typing import Any

import pytest
import yaml
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from activities.profiles import read_profiles
from ramen import names
from ramen.config import ACCESS_KEY, SECRET_KEY
from sandbox import pki

SECRET = {
    "metadata": {"name": "s3-secret"},
    "data": {key: b64encode(b"value").decode() for key in (ACCESS_KEY, SECRET_KEY)},
}


def config(**more: Any) -> dict[str, Any]:
    profile = {
        "s3ProfileName": "east",
        "s3Bucket": "bucket",
        "s3CompatibleEndpoint": "https://store.example",
        "s3SecretRef": {"name": "s3-secret"},
        **more,
    }
    return {"data": {names.RAMEN_CONFIG_KEY: yaml.safe_dump({"s3StoreProfiles": [profile]})}}


def authority() -> str:
    key = ec.generate_private_key(ec.SECP256R1())
    return pki.certificate("private", key, None, None).public_bytes(Encoding.PEM).decode()


def test_private_authorities_come_in_base64() -> None:
    pem = authority()
    usable, unusable = read_profiles(config(caCertificates=b64encode(pem.encode()).decode()), [SECRET])
    assert unusable == {}
    assert usable["east"].ca_certificates == pem


@pytest.mark.parametrize("given", ["no base64!", b64encode(b"no certificate").decode(), 5])
def test_authorities_that_cannot_be_read_make_the_profile_unusable(given: object) -> None:
    usable, unusable = read_profiles(config(caCertificates=given), [SECRET])
    assert usable == {}
    assert "S3 profile east: caCertificates" in unusable["east"]


def test_other_authorities_are_another_profile() -> None:
    """A client that was made with the former ones is replaced."""
    first, second = (
        read_profiles(config(caCertificates=b64encode(authority().encode()).decode()), [SECRET])[0] for _ in range(2)
    )
    assert first != second
