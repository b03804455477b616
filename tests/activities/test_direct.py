"""What answers in the place of an API server: a page of whatever stands before it, or a kubeconfig that is none."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web

from activities.access.direct import DirectAccess
from ramen.errors import Forbidden, HublessError, Invalid, ServerBusy
from ramen.kinds import NAMESPACE


def kubeconfig(server: Any, **user: Any) -> dict[str, Any]:
    return {
        "current-context": "c",
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        "clusters": [{"name": "c", "cluster": {"server": server}}],
        "users": [{"name": "u", "user": user or {"token": "t"}}],
    }


@asynccontextmanager
async def answering(text: str) -> AsyncIterator[DirectAccess]:
    """A client of a server that answers everything with 200 and this text."""

    async def answer(_: web.Request) -> web.Response:
        return web.Response(text=text)

    async with serving(answer) as access:
        yield access


@asynccontextmanager
async def serving(answer: Callable[[web.Request], Awaitable[web.Response]]) -> AsyncIterator[DirectAccess]:
    """A client of a server that answers like this."""
    page = web.Application()
    page.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(page, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    access = await DirectAccess.from_kubeconfig("dr2", kubeconfig(f"http://127.0.0.1:{runner.addresses[0][1]}"))
    try:
        yield access
    finally:
        await access.close()
        await runner.cleanup()


@pytest.mark.parametrize("text", ["<html>maintenance</html>", "[]", '"yes"'], ids=["page", "list", "text"])
async def test_what_is_no_api_server_says_nothing_about_any_object(text: str) -> None:
    async with answering(text) as access:
        with pytest.raises(ServerBusy, match="what answers there is no API server"):
            await access.read(NAMESPACE, "kube-system")
        with pytest.raises(ServerBusy, match="what answers there is no API server"):
            async for _ in access.watch(NAMESPACE, "1"):
                pass


@pytest.mark.parametrize(
    ("refusals", "error"),
    [(2, ServerBusy), (1, None)],
    ids=["everything is refused: to be asked again", "it has just become ready"],
)
async def test_an_api_server_that_is_starting_refuses_everybody(
    refusals: int, error: type[HublessError] | None
) -> None:
    """Its roles are not read yet; a clean-up that met that waited for a person."""
    left = refusals

    async def answer(_: web.Request) -> web.Response:
        nonlocal left
        left -= 1
        return refused() if left >= 0 else web.json_response({"metadata": {"name": "kube-system"}})

    async with serving(answer) as access:
        if error is None:
            assert await access.read(NAMESPACE, "kube-system")
        else:
            with pytest.raises(error):
                await access.read(NAMESPACE, "kube-system")


async def test_a_right_that_is_missing_is_said() -> None:
    async def answer(request: web.Request) -> web.Response:
        return web.json_response({"gitVersion": "v1.36.3"}) if request.path == "/version" else refused()

    async with serving(answer) as access:
        with pytest.raises(Forbidden, match="forbidden"):
            await access.read(NAMESPACE, "kube-system")


def refused() -> web.Response:
    return web.json_response({"message": "forbidden", "reason": "Forbidden"}, status=403)


GARBAGE = b64encode(b"garbage").decode()


@pytest.mark.parametrize(
    "content",
    [
        kubeconfig(5),
        kubeconfig("https://127.0.0.1:1") | {"clusters": "abc"},
        kubeconfig("https://127.0.0.1:1", **{"client-certificate-data": GARBAGE, "client-key-data": GARBAGE}),
    ],
    ids=["server", "clusters", "certificate"],
)
async def test_a_kubeconfig_that_is_none_is_refused_as_such(content: dict[str, Any]) -> None:
    with pytest.raises(Invalid, match="kubeconfig of dr2 cannot be used"):
        await DirectAccess.from_kubeconfig("dr2", content)
