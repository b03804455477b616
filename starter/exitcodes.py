"""What the exit code of every `hubless` command means; scripts branch on it, so it is said in this one place."""

from __future__ import annotations

DONE = 0
FAILED = 1
REFUSED = 2
UNFINISHED = 3
UNREACHABLE = 4

MEANING: dict[int, str] = {
    DONE: "done",
    FAILED: "failed, or a check found a problem",
    REFUSED: "refused or bad input; nothing was changed",
    UNFINISHED: "still running, or not known whether it started: asking again with the request ID is safe",
    UNREACHABLE: "Temporal not reachable; nothing was started",
}

EPILOG = "\b\nExit codes:\n" + "\n".join(f"  {code}  {meaning}" for code, meaning in MEANING.items())
"""Shown at the end of `hubless --help`; `\\b` keeps the lines apart."""
