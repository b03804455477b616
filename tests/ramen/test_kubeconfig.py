"""What a kubeconfig may contain in a Secret, and what of a file has to go inside."""

from __future__ import annotations

from base64 import b64encode
from typing import Any

import pytest

from ramen.errors import Invalid
from ramen.kubeconfig import (
    Kubeconfig,
    files,
    inlined,
    only_current,
    problem_in_secret,
    problem_without_credential,
    programs,
    server,
)


def kubeconfig(user: dict[str, Any] | None = None, **cluster: Any) -> Kubeconfig:
    return {
        "current-context": "dr1",
        "contexts": [
            {"name": "dr1", "context": {"cluster": "one", "user": "worker", "namespace": "web"}},
            {"name": "other", "context": {"cluster": "two", "user": "admin"}},
        ],
        "clusters": [
            {"name": "one", "cluster": {"server": "https://dr1:6443", **cluster}},
            {"name": "two", "cluster": {"server": "https://dr2:6443"}},
        ],
        "users": [
            {"name": "worker", "user": {"token": "t"} if user is None else user},
            {"name": "admin", "user": {"exec": {"command": "login"}}},
        ],
    }


def test_other_contexts_stay_outside() -> None:
    found = only_current(kubeconfig())
    assert [entry["name"] for part in ("contexts", "clusters", "users") for entry in found[part]] == [
        "dr1",
        "one",
        "worker",
    ]
    assert server(found) == "https://dr1:6443"
    assert programs(found) == []
    assert programs(only_current(kubeconfig(), "other")) == ["exec"]


@pytest.mark.parametrize(
    ("broken", "words"),
    [
        ({"current-context": ""}, "names no current-context"),
        ({"current-context": "dr7"}, "has no 'dr7' among its contexts"),
        ({"clusters": []}, "has no 'one' among its clusters"),
        ({"users": []}, "has no 'worker' among its users"),
        ({"clusters": [{"name": "one", "cluster": {}}]}, "cluster one of the kubeconfig has no server"),
    ],
)
def test_what_is_missing_is_named(broken: Kubeconfig, words: str) -> None:
    with pytest.raises(Invalid, match=words):
        only_current(kubeconfig() | broken)


@pytest.mark.parametrize(
    ("user", "words"),
    [
        ({"token": "t"}, ""),
        ({"client-certificate-data": "Y2VydA==", "client-key-data": "a2V5"}, ""),
        ({"exec": {"command": "aws"}}, "by a program (exec)"),
        ({"auth-provider": {"name": "gcp"}}, "by a program (auth-provider)"),
        ({"tokenFile": "/var/run/token"}, "(tokenFile); put the token itself into it"),
        ({"client-certificate": "a.crt"}, "(client-certificate); put its content into it as client-certificate-data"),
        ({"client-key": "a.key"}, "(client-key); put its content into it as client-key-data"),
    ],
)
def test_a_secret_holds_everything_itself(user: dict[str, Any], words: str) -> None:
    problem = problem_in_secret(only_current(kubeconfig(user)))
    assert (problem == "") is (words == "")
    assert words in problem


def test_files_of_a_kubeconfig_file_go_inside() -> None:
    given = only_current(kubeconfig({"tokenFile": "token"}, **{"certificate-authority": "ca.crt"}))
    assert sorted(files(given)) == ["ca.crt", "token"]
    made = inlined(given, {"ca.crt": b"CA", "token": b"abc\n"})
    assert made["users"][0]["user"] == {"token": "abc"}
    assert made["clusters"][0]["cluster"]["certificate-authority-data"] == b64encode(b"CA").decode()
    assert files(made) == []
    assert problem_in_secret(made) == ""
    assert given["users"][0]["user"] == {"tokenFile": "token"}, "the given one is left as it is"


def test_data_wins_over_a_file_of_the_same_thing() -> None:
    given = only_current(kubeconfig(**{"certificate-authority": "ca.crt", "certificate-authority-data": "Q0E="}))
    assert files(given) == []
    assert inlined(given, {})["clusters"][0]["cluster"]["certificate-authority-data"] == "Q0E="


def test_a_user_without_a_credential_is_named() -> None:
    assert problem_without_credential(only_current(kubeconfig({}))) != ""
    assert problem_without_credential(only_current(kubeconfig())) == ""
