"""Errors that name a user's mistake in one line, and the words that messages share."""

from typing import Any

from pydantic import ValidationError

MAX_MESSAGE = 1500  # characters of a message


def one_line(error: BaseException) -> str:
    """The message of an exception in one line; its type where it has none."""
    return " ".join(str(error).split()) or type(error).__name__


def first_line(error: object) -> str:
    """The first line of a message of another library, whose other lines are advice on its use.

    The type of an exception where it has no message.
    """
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def first_problem(error: ValidationError) -> tuple[str, str]:
    """Where the first invalid value is, as a dotted path, and what it must be.

    The path is empty for an error of the whole text.
    """
    first = error.errors()[0]
    reason = first_line(first["msg"]).replace("Input should be", "must be")
    return ".".join(map(str, first["loc"])), reason


def counted(count: int, noun: str) -> str:
    """A count and its noun, as in "1 run" and "2,000 runs"."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


class UserError(Exception):
    """A mistake of the user: its message is one line, printed without a traceback.

    Line breaks and other characters that a terminal does not print are escaped. The middle of a
    very long message, such as one with a long value, is left out.
    """

    def __str__(self) -> str:
        text = super().__str__()
        if len(text) > MAX_MESSAGE:
            text = f"{text[: MAX_MESSAGE - 300]} ... {text[-300:]}"
        return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


class SpecError(UserError):
    """A setting whose value is not allowed.

    Args:
        path: dotted name of the setting.
        value: what it was.
        allowed: what it may be.
    """

    def __init__(self, path: str, value: Any, allowed: str):
        super().__init__(f"{path}={value}: {allowed}")
        self.path, self.allowed = path, allowed
