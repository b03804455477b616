"""The base of every API model: JSON names, nothing unknown lost, nothing written that was never said.

A model is one description with two uses: it reads and writes objects (`ramen.objects`), and the CRD is generated
from it (`ramen.crds`). Reading is lenient, because the API server has already validated what it serves and a
newer operator may say more than we know; what the server is to enforce is stated with `Rules` and goes into the
CRD only.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, ConfigDict, SerializerFunctionWrapHandler, model_serializer, model_validator


class _NoDefault:
    """Tells "no default" from a default of None, `""` or `{}`."""


NO_DEFAULT = _NoDefault()


@dataclass(frozen=True)
class Rules:
    """What the CRD says about a field beside its type; put into `Annotated`, several may meet on one field."""

    required: bool = False
    immutable: bool = False
    enum: tuple[str, ...] = ()
    pattern: str = ""
    format: str = ""
    minimum: int | None = None
    min_length: int | None = None
    max_length: int | None = None
    nullable: bool = False
    atomic: bool = False
    list_keys: tuple[str, ...] = ()
    """Fields that tell the items of a list apart (`x-kubernetes-list-type: map`)."""
    default: Any = NO_DEFAULT
    cel: tuple[tuple[str, str], ...] = field(default=())
    """Pairs of CEL rule and message, in the order in which the CRD lists them."""


Time = Annotated[str, Rules(format="date-time")]
"""RFC 3339, kept as text so that an object is written back as it was read."""
Int64 = Annotated[int, Rules(format="int64")]
Quantity = int | str
"""A Kubernetes quantity such as `1Gi`; a bare number is legal too."""
Required = Rules(required=True)


def parse_time(text: str) -> datetime | None:
    """The moment that an RFC 3339 text names; None for an empty or unreadable one."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def format_time(moment: datetime) -> str:
    """RFC 3339 in UTC with whole seconds, the form that Kubernetes itself writes."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def json_name(python_name: str) -> str:
    """`failover_cluster` as `failoverCluster`; a trailing underscore (`async_`) only dodges a Python keyword."""
    first, *rest = python_name.rstrip("_").split("_")
    return first + "".join(word[:1].upper() + word[1:] for word in rest)


class Model(BaseModel):
    """A part of an API object. Unknown fields are kept; a field left unset and empty is not written."""

    model_config = ConfigDict(extra="allow", alias_generator=json_name, populate_by_name=True, serialize_by_alias=True)

    ATOMIC: ClassVar[bool] = False
    """The server replaces a value of this type as a whole (`x-kubernetes-map-type: atomic`)."""
    CEL: ClassVar[tuple[tuple[str, str], ...]] = ()
    """CEL rules that need more than one field, as pairs of rule and message."""
    OPEN: ClassVar[bool] = False
    """The server keeps fields that the schema does not name."""

    @model_validator(mode="before")
    @classmethod
    def _null_is_absent(cls, value: Any) -> Any:
        """Go writes `null` for an empty time or list; it says as little as an absent field."""
        if not isinstance(value, Mapping):
            return value
        known = {name for key, info in cls.model_fields.items() for name in (key, info.alias)}
        return {key: item for key, item in value.items() if item is not None or key not in known}

    @model_serializer(mode="wrap")
    def _leave_out_unset(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Drops None, and what nobody set and is still empty; `false`, `{}` and `[]` that were set stay."""
        written: dict[str, Any] = handler(self)
        for name, info in type(self).model_fields.items():
            for key in (name, info.alias or name):
                if key in written and (
                    written[key] is None or (not written[key] and name not in self.model_fields_set)
                ):
                    del written[key]
        return written
