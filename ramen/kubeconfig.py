"""What a kubeconfig may contain, depending on where it lies. Pure: files are read by whoever asks.

A kubeconfig file belongs to the person or process that reads it: programs and files that it names are theirs. A
kubeconfig in a Secret is used by every worker, and whoever may write that Secret must not make a worker run a program
or send a file of its own to a server of their choice: there, everything has to be inside.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterator, Mapping
from copy import deepcopy
from typing import Any

from ramen.errors import Invalid

Kubeconfig = dict[str, Any]

FILES = {
    "certificate-authority": "certificate-authority-data",
    "client-certificate": "client-certificate-data",
    "client-key": "client-key-data",
}
"""Fields that name a file, and those that hold its content in base64."""

TOKEN_FILE = "tokenFile"

PROGRAMS = ("exec", "auth-provider")
"""Fields by which a client runs a program, or a plug-in of its own, to get a credential."""

CREDENTIALS = ("token", "client-certificate-data", "password")
"""One of these makes a user that can sign in by itself."""


def only_current(content: Kubeconfig, context: str = "") -> Kubeconfig:
    """The kubeconfig with nothing in it but its current context, or the given one.

    Raises `Invalid`, naming the part, when context, cluster or user are missing. Extensions are left out.
    """
    wanted = context or str(content.get("current-context") or "")
    if not wanted:
        raise Invalid("the kubeconfig names no current-context")
    chosen = _named(content, "contexts", wanted).get("context") or {}
    cluster = _named(content, "clusters", str(chosen.get("cluster") or ""))
    user = _named(content, "users", str(chosen.get("user") or ""))
    if not (cluster.get("cluster") or {}).get("server"):
        raise Invalid(f"cluster {cluster['name']} of the kubeconfig has no server")
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": wanted,
        "contexts": [{"name": wanted, "context": {key: chosen[key] for key in ("cluster", "user")}}],
        "clusters": [{"name": cluster["name"], "cluster": deepcopy(cluster["cluster"])}],
        "users": [{"name": user["name"], "user": deepcopy(user.get("user") or {})}],
    }


def _named(content: Kubeconfig, part: str, name: str) -> dict[str, Any]:
    for entry in content.get(part) or []:
        if isinstance(entry, dict) and entry.get("name") == name:
            return entry
    raise Invalid(f"the kubeconfig has no {name!r} among its {part}")


def _sections(content: Kubeconfig) -> Iterator[dict[str, Any]]:
    """All clusters and users."""
    for part, inner in (("clusters", "cluster"), ("users", "user")):
        for entry in content.get(part) or []:
            if isinstance(entry, dict) and isinstance(entry.get(inner), dict):
                yield entry[inner]


def programs(content: Kubeconfig) -> list[str]:
    """By what a client of this kubeconfig would run a program; empty for most."""
    return [field for section in _sections(content) for field in PROGRAMS if section.get(field)]


def files(content: Kubeconfig) -> list[str]:
    """Paths that the kubeconfig names, in its own words: relative ones are meant from where it lies."""
    return [
        str(section[field])
        for section in _sections(content)
        for field in (*FILES, TOKEN_FILE)
        if section.get(field) and not (field in FILES and section.get(FILES[field]))
    ]


def inlined(content: Kubeconfig, contents: Mapping[str, bytes]) -> Kubeconfig:
    """The kubeconfig with the contents of its `files` in place of their paths."""
    made = deepcopy(content)
    for section in _sections(made):
        for field, data in FILES.items():
            path = section.pop(field, None)
            if path and not section.get(data):
                section[data] = b64encode(contents[str(path)]).decode()
        if path := section.pop(TOKEN_FILE, None):
            section["token"] = contents[str(path)].decode().strip()
    return made


def problem_in_secret(content: Kubeconfig) -> str:
    """Why this kubeconfig must not be used from a Secret, with the remedy; empty when it may."""
    if found := programs(content):
        return (
            f"it gets its credential by a program ({found[0]}), which a Secret must not make a worker run; "
            f"use a token or a client certificate"
        )
    if any(section.get(TOKEN_FILE) for section in _sections(content)):
        return f"it names a file of the worker ({TOKEN_FILE}); put the token itself into it"
    for section in _sections(content):
        for field, data in FILES.items():
            if section.get(field):
                return f"it names a file of the worker ({field}); put its content into it as {data}"
    return ""


def problem_without_credential(content: Kubeconfig) -> str:
    """Why nobody could sign in with this kubeconfig; empty when somebody might."""
    users = [entry.get("user") or {} for entry in content.get("users") or []]
    if not any(user.get(field) for user in users for field in CREDENTIALS):
        return "its user has neither a token nor a client certificate"
    return ""


def server(content: Kubeconfig) -> str:
    """URL of the API server of a kubeconfig with one context; empty when there is none."""
    for section in content.get("clusters") or []:
        return str((section.get("cluster") or {}).get("server") or "")
    return ""
