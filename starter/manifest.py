"""What `hubless protect` is told, as a file or as flags, made into one request; bad input never travels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from activities.contracts import ProtectRequest
from ramen import kinds
from starter.failures import Refused


def read_drpc(path: Path) -> dict[str, Any]:
    """The one DRPlacementControl of a YAML file. Raises `Refused` that names the file, the line and what is wrong."""
    try:
        documents = [each for each in yaml.safe_load_all(path.read_text()) if each is not None]
    except OSError as err:
        raise Refused(f"{path} cannot be read: {err.strerror}.") from err
    except UnicodeDecodeError as err:
        raise Refused(f"{path} is not a text file.") from err
    except yaml.YAMLError as err:
        mark = getattr(err, "problem_mark", None)
        line = f" in line {mark.line + 1}" if mark else ""
        raise Refused(f"{path} is not valid YAML{line}: {getattr(err, 'problem', None) or err}.") from err
    found = [each for each in documents if isinstance(each, dict) and each.get("kind") == kinds.DRPC.kind]
    if len(found) != 1:
        raise Refused(f"{path} holds {len(found)} objects of kind {kinds.DRPC.kind}; exactly one is needed.")
    if found[0].get("apiVersion") != kinds.DRPC.api_version:
        raise Refused(
            f"{path}: apiVersion is {found[0].get('apiVersion')!r}; {kinds.DRPC.kind} needs {kinds.DRPC.api_version}."
        )
    for part in ("metadata", "spec"):
        if not isinstance(found[0].get(part, {}), dict):
            raise Refused(f"{path}: {part} is not a mapping.")
    return found[0]


def selector(pairs: list[str]) -> dict[str, Any]:
    """A label selector of `key=value` pairs, also several in one text as kubectl takes them. Raises `Refused` for
    anything else."""
    labels: dict[str, str] = {}
    for pair in (each for text in pairs for each in text.split(",")):
        key, equals, value = pair.partition("=")
        if not key or not equals:
            raise Refused(f"--selector {pair!r} is not key=value. Example: --selector app=shop")
        labels[key] = value
    return {"matchLabels": labels}


def build(
    name: str, namespace: str, path: Path | None, policy: str, preferred: str, placement: str, pairs: list[str]
) -> ProtectRequest:
    """The request; flags win over the file, and without `preferred` a cluster is chosen.

    Raises `Refused` naming what is missing or contradicts the file.
    """
    drpc = read_drpc(path) if path else {}
    meta = drpc.get("metadata") or {}
    spec: dict[str, Any] = dict(drpc.get("spec") or {})
    for given, said, what in ((name, meta.get("name"), "NAME"), (namespace, meta.get("namespace"), "--namespace")):
        if given and said and given != said:
            raise Refused(f"{what} is {given}, but {path} says {said}. Leave one of them out.")
    if policy:
        spec["drPolicyRef"] = {"name": policy}
    if preferred:
        spec["preferredCluster"] = preferred
    if placement:
        spec["placementRef"] = {"kind": "Placement", "name": placement}
    if pairs:
        spec["pvcSelector"] = selector(pairs)
    wanted = {
        "NAME": name or meta.get("name"),
        "--namespace": namespace or meta.get("namespace"),
        "--policy": spec.get("drPolicyRef"),
        "--placement": spec.get("placementRef"),
        "--selector": spec.get("pvcSelector"),
    }
    if missing := [flag for flag, value in wanted.items() if value is None or value == ""]:
        raise Refused(f"Missing: {', '.join(missing)}. Give them as flags, or a DRPC with -f drpc.yaml")
    try:
        return ProtectRequest(
            namespace=str(wanted["--namespace"]),
            name=str(wanted["NAME"]),
            spec=spec,
            annotations=meta.get("annotations") or {},
            uid=meta.get("uid") or "",
        )
    except ValidationError as err:
        first = err.errors()[0]
        raise Refused(f"{path}: {'.'.join(str(part) for part in first['loc'])}: {first['msg']}.") from err
