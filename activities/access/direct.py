"""Direct access to a cluster's API server through `kubernetes.aio`: time limits, error map, watches.

One client per cluster and process. Bodies stay plain JSON: the generated models would drop what they do not know,
and Ramen's objects must keep unknown fields. Errors of the client library are mapped here and nowhere else.
"""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import urlencode

import aiohttp
from kubernetes.aio import client, config
from kubernetes.aio.config.config_exception import ConfigException

from activities.access.protocol import Object, WatchEvent
from ramen.errors import (
    AlreadyExists,
    ClusterUnreachable,
    Conflict,
    Forbidden,
    Gone,
    HublessError,
    Invalid,
    KindMissing,
    NotFound,
    ServerBusy,
    Unauthorized,
)
from ramen.kinds import Kind

CALL_SECONDS = 5.0
"""Total time of one call: milliseconds are normal (guides/kubernetes.md), five seconds are a dead server."""

OWN_KUBECONFIG = os.path.expanduser("~/.kube/config")
"""Where a person's kubeconfig is when KUBECONFIG names none."""

ANYBODY_MAY_ASK = "/version"
"""By the server's own role `system:public-info-viewer`; whether a cluster answers is asked there too."""

WATCH_GRACE_SECONDS = 5.0
"""Client-side limit of a watch beyond the server-side one, so that a frozen server cannot hold it for ever."""


class DirectAccess:
    """`ClusterAccess` over HTTPS with a kubeconfig or the pod's service account."""

    def __init__(self, name: str, api: client.ApiClient, call_seconds: float = CALL_SECONDS) -> None:
        self.name = name
        self._api = api
        self._seconds = call_seconds
        self.calls: dict[tuple[str, str], int] = {}
        """Number of requests by (verb, plural), for benchmarks and metrics."""

    @classmethod
    async def from_kubeconfig(
        cls, name: str, kubeconfig: dict[str, Any], call_seconds: float = CALL_SECONDS
    ) -> DirectAccess:
        """Makes a client from a parsed kubeconfig.

        Raises `Invalid` when the kubeconfig lacks a context, a cluster or a user, or has a certificate or key that is
        none; nothing is contacted yet.
        """
        try:
            api = await config.new_client_from_config_dict(kubeconfig)
        except (ConfigException, ValueError, KeyError, TypeError, AttributeError, OSError) as err:
            raise Invalid(f"kubeconfig of {name} cannot be used: {err}") from err
        api.configuration.retries = None
        return cls(name, api, call_seconds)

    @classmethod
    async def from_own_kubeconfig(cls, context: str = "", call_seconds: float = CALL_SECONDS) -> DirectAccess:
        """Makes a client as kubectl does: the files of KUBECONFIG, else `~/.kube/config`, programs included.

        For the command line of a person, never for what comes from a Secret. Raises `Invalid`.
        """
        files = os.environ.get("KUBECONFIG") or OWN_KUBECONFIG
        try:
            api = await config.new_client_from_config(files, context or None, persist_config=False)
        except (ConfigException, ValueError, KeyError, TypeError, OSError) as err:
            raise Invalid(f"no cluster is found by your kubeconfig ({files}): {_short(err)}") from err
        api.configuration.retries = None
        return cls(context or "the cluster of your kubeconfig", api, call_seconds)

    @classmethod
    async def in_cluster(cls, name: str) -> DirectAccess:
        """Makes a client from the pod's service account; raises `Invalid` outside a pod."""
        settings = client.Configuration()
        try:
            config.load_incluster_config(client_configuration=settings)
        except ConfigException as err:
            raise Invalid(f"no service account to reach {name} with: {err}") from err
        return cls(name, client.ApiClient(settings))

    async def close(self) -> None:
        """Closes the connections."""
        await self._api.close()

    async def read(self, kind: Kind, name: str, namespace: str | None = None) -> Object | None:
        """See `ClusterAccess.read`."""
        try:
            return await self._call("GET", kind, namespace, name)
        except NotFound:
            return None

    async def list(
        self, kind: Kind, namespace: str | None = None, labels: str | None = None, fields: str | None = None
    ) -> tuple[list[Object], str]:
        """See `ClusterAccess.list`."""
        query = {"labelSelector": labels, "fieldSelector": fields}
        found = await self._call("GET", kind, namespace, query=query, verb="list")
        items = [{"apiVersion": kind.api_version, "kind": kind.kind, **item} for item in found.get("items") or []]
        return items, found["metadata"]["resourceVersion"]

    async def create(self, kind: Kind, body: Object, namespace: str | None = None) -> Object:
        """See `ClusterAccess.create`."""
        namespace = namespace or body["metadata"].get("namespace")
        return await self._call("POST", kind, namespace, body=_typed(kind, body), verb="create")

    async def replace(self, kind: Kind, body: Object, subresource: str | None = None) -> Object:
        """See `ClusterAccess.replace`."""
        meta = body["metadata"]
        return await self._call(
            "PUT", kind, meta.get("namespace"), meta["name"], subresource, body=_typed(kind, body), verb="update"
        )

    async def patch(
        self, kind: Kind, name: str, patch: Object, namespace: str | None = None, subresource: str | None = None
    ) -> Object:
        """See `ClusterAccess.patch`."""
        return await self._call("PATCH", kind, namespace, name, subresource, body=patch, verb="patch")

    async def delete(
        self,
        kind: Kind,
        name: str,
        namespace: str | None = None,
        uid: str | None = None,
        resource_version: str | None = None,
    ) -> None:
        """See `ClusterAccess.delete`."""
        wanted = {"uid": uid, "resourceVersion": resource_version}
        body = {
            "apiVersion": "v1",
            "kind": "DeleteOptions",
            "propagationPolicy": "Background",
            "preconditions": {key: value for key, value in wanted.items() if value},
        }
        try:
            await self._call("DELETE", kind, namespace, name, body=body, verb="delete")
        except NotFound:
            return

    async def version(self) -> str:
        """See `ClusterAccess.version`."""
        found = await self._request("GET", ANYBODY_MAY_ASK, None, None, f"version of {self.name}")
        return str(found.get("gitVersion", "unknown"))

    async def watch(
        self, kind: Kind, resource_version: str, namespace: str | None = None, seconds: float = 300.0
    ) -> AsyncIterator[WatchEvent]:
        """See `ClusterAccess.watch`."""
        query = {
            "watch": "true",
            "resourceVersion": resource_version,
            "allowWatchBookmarks": "true",
            "timeoutSeconds": str(int(max(1, seconds))),
        }
        what = f"watch of {kind.plural} on {self.name}"
        self.calls[("watch", kind.plural)] = self.calls.get(("watch", kind.plural), 0) + 1
        response: Any = None
        try:
            response = await self._send("GET", kind.path(namespace), query, None, seconds + WATCH_GRACE_SECONDS)
            if response.status >= 400:
                raise _error(response.status, (await response.read()).decode(errors="replace"), what)
            async for line in response.response.content:
                if not line.strip():
                    continue
                event = _parsed(line, what)
                found = event.get("object")
                if not isinstance(found, dict):
                    raise ServerBusy(f"{what}: what answers there is no API server")
                if event.get("type") == "ERROR":
                    raise _error(int(found.get("code", 500)), json.dumps(found), what)
                yield WatchEvent(event["type"], found)
        except TimeoutError:
            return
        except (aiohttp.ClientError, OSError) as err:
            raise ClusterUnreachable(f"{what}: {_short(err)}") from err
        finally:
            if response is not None:
                response.response.close()

    async def _call(
        self,
        method: str,
        kind: Kind,
        namespace: str | None = None,
        name: str | None = None,
        subresource: str | None = None,
        *,
        query: dict[str, str | None] | None = None,
        body: Object | None = None,
        verb: str = "get",
    ) -> Object:
        self.calls[(verb, kind.plural)] = self.calls.get((verb, kind.plural), 0) + 1
        where = f"{namespace}/{name}" if namespace and name else name or namespace or "all namespaces"
        if name is None and body is not None:
            where = f"{namespace}/" if namespace else ""
            where += str(body.get("metadata", {}).get("name", ""))
        what = f"{kind.kind} {where} on {self.name}"
        clean = {key: value for key, value in (query or {}).items() if value}
        return await self._request(method, kind.path(namespace, name, subresource), clean, body, what)

    async def _request(
        self, method: str, path: str, query: dict[str, str] | None, body: Object | None, what: str
    ) -> Object:
        status, text = await self._answer(method, path, query, body, what)
        if status == 403:
            # An API server that was just started refuses everything until it has read its roles (measured). It would
            # pass for one where a right was lost, for which a person is waited for.
            asked, _ = await self._answer("GET", ANYBODY_MAY_ASK, None, None, what)
            if asked != 200:
                raise ServerBusy(f"{what}: the API server refuses whatever it is asked (403), as one that is starting")
            # It may have read them in between; what it refused was not carried out.
            status, text = await self._answer(method, path, query, body, what)
        if status >= 400:
            raise _error(status, text, what)
        return _parsed(text, what) if text else {}

    async def _answer(
        self, method: str, path: str, query: dict[str, str] | None, body: Object | None, what: str
    ) -> tuple[int, str]:
        """Status and text of an answer, whichever it is; raises `ClusterUnreachable` without one."""
        try:
            response = await self._send(method, path, query, body, self._seconds)
            return response.status, (await response.read()).decode(errors="replace")
        except TimeoutError as err:
            raise ClusterUnreachable(f"{what}: no answer in {self._seconds:g} s") from err
        except (aiohttp.ClientError, OSError) as err:
            raise ClusterUnreachable(f"{what}: {_short(err)}") from err

    async def _send(
        self, method: str, path: str, query: dict[str, str] | None, body: Object | None, seconds: float
    ) -> Any:
        content = "application/merge-patch+json" if method == "PATCH" else "application/json"
        headers = {"Accept": "application/json", "Content-Type": content, "User-Agent": "hubless"}
        try:
            await self._api.update_params_for_auth(headers, [], ["BearerToken"], path, method, body)
        except ConfigException as err:
            raise Unauthorized(f"{self.name}: the credentials cannot be read: {_short(err)}") from err
        url = self._api.configuration.host + path + (f"?{urlencode(query)}" if query else "")
        return await self._api.rest_client.request(method, url, headers=headers, body=body, _request_timeout=seconds)


def _typed(kind: Kind, body: Object) -> Object:
    return {"apiVersion": kind.api_version, "kind": kind.kind, **body}


def _parsed(text: str | bytes, what: str) -> Object:
    """An answer of the API server; a page of whatever stands before it says as little as a 503."""
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise ServerBusy(f"{what}: what answers there is no API server")
    return found


def _short(err: BaseException) -> str:
    """One line of a transport error: the client's texts carry addresses and nested reprs."""
    return str(err).splitlines()[0] if str(err) else type(err).__name__


def _error(status: int, text: str, what: str) -> HublessError:
    """Maps an HTTP status to the error of `ramen.errors` that says what a caller can do about it."""
    try:
        details = json.loads(text)
        message, reason = str(details.get("message", text)), str(details.get("reason", ""))
    except (ValueError, AttributeError):
        message, reason = text, ""
    # Long messages of admission and validation hide the point; 300 characters keep the first cause.
    line = f"{what}: {' '.join(message.split())[:300]}"
    if status == 401:
        return Unauthorized(f"{what}: the API server refused the credentials (401)")
    if status == 403:
        return Forbidden(line)
    if status == 404:
        # A missing object has details.name; a missing kind answers in plain text or without one.
        return KindMissing(line) if "could not find the requested resource" in message or not reason else NotFound(line)
    if status == 409:
        return AlreadyExists(line) if reason == "AlreadyExists" else Conflict(line)
    if status == 410:
        return Gone(line)
    if status in (400, 422):
        return Invalid(line)
    return ServerBusy(f"{line} ({status})")
