"""Settings of a worker: environment variables `HUBLESS_*`, and below them an optional YAML file.

How to reach Temporal is not set here: `temporalio.envconfig` reads `TEMPORAL_*` and the profile file that the
`temporal` command line uses too, so both always agree.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field, StringConstraints, ValidationError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from ramen import names

PREFIX = "HUBLESS_"

ClusterName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$")]
"""Part of queue names and object names, so it has to be a DNS label."""


class SettingsError(Exception):
    """One line per wrong setting: its name, what is wrong, and what it has to be."""


class Settings(BaseSettings):
    """What one worker process is told; each description completes "Set NAME to …"."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, env_ignore_empty=True, extra="forbid", frozen=True)

    cluster: ClusterName = Field(description="the name of the cluster that this worker belongs to, e.g. dr1")
    kubeconfig: Path | None = Field(
        default=None,
        description="the path of a kubeconfig file for this cluster; leave it out inside a pod",
    )
    http_host: str = Field(default="127.0.0.1", min_length=1, description="an address to listen on; 0.0.0.0 in a pod")
    http_port: int = Field(default=8080, ge=0, le=65535, description="a free port from 1 to 65535 (0: any)")
    ramen_namespace: str = Field(
        default=names.RAMEN_NAMESPACE, min_length=1, description="the namespace of the dr-cluster operator"
    )
    coordination_bucket: str = Field(
        default=names.COORDINATION_BUCKET, min_length=3, description="the bucket of the mirror in every S3 store"
    )
    slots: int = Field(default=20, ge=2, le=1000, description="2 to 1000 short activities at a time per cluster")
    wait_slots: int = Field(default=5000, ge=2, le=50_000, description="2 to 50000 waits at a time per cluster")
    control_slots: int = Field(
        default=2000,
        ge=2,
        le=20_000,
        description="2 to 20000 store activities at a time; each action holds one for its lock",
    )
    cached_workflows: int = Field(default=2000, ge=1, le=100_000, description="1 to 100000 workflows kept in memory")
    graceful_seconds: float = Field(default=20.0, ge=0, le=600, description="0 to 600 seconds for an orderly end")
    probe_seconds: float = Field(default=2.0, ge=0.2, le=60, description="0.2 to 60 seconds between health probes")
    refresh_seconds: float = Field(
        default=30.0, ge=1, le=3600, description="1 to 3600 seconds between looks at registry and Secrets"
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="debug, info, warning or error"
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """The environment first, then what `load` read from the file."""
        return env_settings, init_settings


def load(config: Path | None = None) -> Settings:
    """Reads the settings; a variable wins over the same name in the file.

    Raises `SettingsError` with one line per wrong setting.
    """
    try:
        return Settings(**(_from_file(config) if config else {}))
    except ValidationError as err:
        raise SettingsError("\n".join(_line(problem, config) for problem in err.errors())) from None


def _from_file(config: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(config.read_text())
    except OSError as err:
        raise SettingsError(f"--config {config}: {err.strerror}; name a readable YAML file") from None
    except (yaml.YAMLError, UnicodeDecodeError):
        raise SettingsError(f"--config {config}: is no YAML; write one `name: value` per line") from None
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise SettingsError(f"--config {config}: is no mapping; write one `name: value` per line")
    return {str(key): value for key, value in content.items()}


def _line(problem: Any, config: Path | None) -> str:
    name = str(problem["loc"][0]) if problem["loc"] else "settings"
    field = Settings.model_fields.get(name)
    if field is None:
        known = ", ".join(sorted(Settings.model_fields))
        return f"{name} in {config}: there is no such setting; remove it, or use one of: {known}"
    variable = PREFIX + name.upper()
    if problem["type"] == "missing":
        return f"{variable} is not set. Set it to {field.description}."
    return f"{variable}={problem['input']!s}: {problem['msg'].lower()}. Set it to {field.description}."
