"""What every program shares: a mistake is one line, and closed output does not stop the work."""

import argparse
import contextlib
import functools
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn, ParamSpec

from .errors import UserError, one_line

CLOSED = 141  # exit status of a process that SIGPIPE ended: its output had no reader

P = ParamSpec("P")


class Parser(argparse.ArgumentParser):
    """A parser of a command line whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        """End the program."""
        sys.exit(f"error: {message} (--help lists the options)")


class Output:
    """A standard stream that can be written to even if it is closed, full, or ASCII only.

    Attributes:
        failure: why output was lost; None if it was not.
    """

    def __init__(self, stream: Any):
        self._stream = stream
        self.failure: OSError | None = None
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # ± in an ASCII locale

    def write(self, text: str) -> int:
        """Write a text, or discard it if that fails."""
        self._do(self._stream.write, text)
        return len(text)

    def flush(self) -> None:
        """Write what is buffered, or discard it if that fails."""
        self._do(self._stream.flush)

    def _do(self, step: Callable[..., object], *arguments: str) -> None:
        try:
            step(*arguments)
        except OSError as error:
            self.failure = error
            with open(os.devnull, "wb") as nowhere:  # also for what is buffered
                os.dup2(nowhere.fileno(), self._stream.fileno())

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def program(main: Callable[P, None]) -> Callable[P, None]:
    """Decorate a ``main``: errors become one line, and closed output does not stop the work."""

    @functools.wraps(main)
    def whole(*args: P.args, **kwargs: P.kwargs) -> None:
        with _lasting_output():
            try:
                main(*args, **kwargs)
            except UserError as error:
                sys.exit(f"error: {error}")
            except OSError as error:  # about a file or a folder that no other message names
                sys.exit(f"error: {_place_of(error)}{reason_of(error)}")
            except KeyboardInterrupt:
                sys.exit("interrupted")

    return whole


@contextlib.contextmanager
def _lasting_output() -> Iterator[None]:
    """Inside the block, output may be lost; the exit status then says so."""
    nowhere = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 (a stream may be None)
    out, err = Output(sys.stdout or nowhere), Output(sys.stderr or nowhere)
    try:
        with nowhere, contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):  # type: ignore[type-var]
            try:
                yield
            finally:
                out.flush()
                err.flush()
    except SystemExit as end:
        if end.code or not (out.failure or err.failure):
            raise
    failure = out.failure or err.failure
    if isinstance(failure, BrokenPipeError):  # as in `... | head`
        sys.exit(CLOSED)
    if failure:
        sys.exit(f"error: standard output: cannot be written ({reason_of(failure)})")


def reason_of(error: Exception) -> str:
    """What the system says about a file, in one line."""
    return getattr(error, "strerror", None) or one_line(error)


def _place_of(error: OSError) -> str:
    return "" if error.filename is None else f"{error.filename2 or error.filename}: "


def check_folder(given: str, folder: Path) -> None:
    """Create a folder, and refuse one that is not writable, before any work is done.

    Args:
        given: how the user named it, as in ``--out afile``.
        folder: folder that will be written to.

    Raises:
        UserError: names it and the reason.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except (OSError, ValueError) as error:
        raise UserError(f"{given}: cannot be written ({reason_of(error)})") from None
