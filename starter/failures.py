"""How a command ends when it cannot go on: one exception that carries the lines to print and the exit code."""

from __future__ import annotations

from starter import exitcodes


class Stopped(Exception):
    """Ends the command with `code`; `lines` are printed as they are, the first after the mark that fits the code."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code
        self.text = text


class Refused(Stopped):
    """The request was not carried out and nothing was changed (exit 2)."""

    def __init__(self, text: str) -> None:
        super().__init__(exitcodes.REFUSED, text)


class Failed(Stopped):
    """Anything else went wrong (exit 1)."""

    def __init__(self, text: str) -> None:
        super().__init__(exitcodes.FAILED, text)


class Unfinished(Stopped):
    """It goes on, or it is not known whether it started (exit 3)."""

    def __init__(self, text: str) -> None:
        super().__init__(exitcodes.UNFINISHED, text)


class Unreachable(Stopped):
    """Temporal does not answer (exit 4)."""

    def __init__(self, text: str) -> None:
        super().__init__(exitcodes.UNREACHABLE, text)


class NoWorker(Failed):
    """The application's workflow exists, but no worker answers for it."""
