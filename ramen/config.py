"""The part of RamenConfig that Hubless reads: the S3 stores of an installation (drpc.md 6.2).

The ConfigMap's YAML is parsed by whoever reads the ConfigMap; here it is already a dict. Everything else in it
belongs to the dr-cluster operator and is neither read nor written.
"""

from __future__ import annotations

from typing import Any, Self
from urllib.parse import urlsplit

from pydantic import Field, ValidationError

from ramen.errors import Invalid
from ramen.model import Model

NO_S3 = "NoS3"
"""Profile name of a DRCluster that has no store."""
ACCESS_KEY = "AWS_ACCESS_KEY_ID"
SECRET_KEY = "AWS_SECRET_ACCESS_KEY"
"""Keys of a store's Secret."""


class SecretReference(Model):
    """Names a Secret; an empty namespace is the operator's own."""

    name: str = ""
    namespace: str = ""


class SecretKeySelector(Model):
    """Names one key of a Secret."""

    name: str = ""
    key: str = ""


class S3StoreProfile(Model):
    """One S3 store and how to reach it."""

    s3_profile_name: str = ""
    s3_bucket: str = ""
    s3_compatible_endpoint: str = ""
    s3_region: str = ""
    s3_secret_ref: SecretReference = Field(default_factory=SecretReference)
    velero_namespace_secret_key_ref: SecretKeySelector | None = None
    ca_certificates: str = ""
    """PEM, in base64."""

    def problem(self) -> str:
        """What makes the profile unusable, in one line; empty when nothing does. Nothing is contacted."""
        endpoint = urlsplit(self.s3_compatible_endpoint)
        if not endpoint.scheme or not endpoint.netloc:
            return f"S3 profile {self.s3_profile_name} has no usable s3CompatibleEndpoint: give an absolute URL."
        if not self.s3_bucket:
            return f"S3 profile {self.s3_profile_name} has no s3Bucket: name one."
        return ""


class RamenConfig(Model):
    """The operator's configuration, as far as it concerns stores."""

    s3_store_profiles: list[S3StoreProfile] = Field(default_factory=list)
    ramen_ops_namespace: str = "ramen-ops"

    @classmethod
    def of(cls, config: dict[str, Any]) -> Self:
        """Reads the parsed YAML of the ConfigMap; raises `Invalid` naming the field that cannot be read."""
        try:
            return cls.model_validate(config)
        except ValidationError as error:
            first = error.errors()[0]
            field = ".".join(str(part) for part in first["loc"])
            raise Invalid(f"RamenConfig cannot be read: {field}: {first['msg']}.") from error

    def profile(self, name: str) -> S3StoreProfile | None:
        """The profile of that name, or None."""
        return next((profile for profile in self.s3_store_profiles if profile.s3_profile_name == name), None)
