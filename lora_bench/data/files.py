"""Text files, read strictly."""

from pathlib import Path

from . import DataError

SHOWN = 60  # characters of a wrong value that a message repeats


def read_utf8(path: Path) -> str:
    """The text of a UTF-8 file, a byte-order mark left out.

    Raises:
        DataError: names the line that is not UTF-8 or holds a NUL character.
    """
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from None
    try:
        text = raw.decode("utf-8-sig")  # MRPC starts with a byte-order mark
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        message = f"byte 0x{raw[error.start]:02x} is not UTF-8; must be UTF-8 text"
        raise DataError(f"{path} line {line}: {message}") from None
    if "\0" in text:
        line = text[: text.index("\0")].count("\n") + 1
        raise DataError(f"{path} line {line}: holds a NUL character; must be UTF-8 text")
    return text


def check_characters(name: str, text: str) -> None:
    """Refuse a text with a NUL, or with half of a surrogate pair, which only JSON can hold.

    Raises:
        ValueError: names the text.
    """
    if "\0" in text:
        raise ValueError(f"{name} holds a NUL character; must be text")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        half = f"U+{ord(text[error.start]):04X}"
        raise ValueError(f"{name} holds {half}, half of a character; must be text") from None


def shown(value: object) -> str:
    """A value as a message shows it, long ones shortened."""
    try:
        text = repr(value)
    except RecursionError:
        return f"a {type(value).__name__} nested too deeply"
    return text if len(text) <= SHOWN else text[: SHOWN - 3] + "..."
