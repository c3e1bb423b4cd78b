"""Requirements for every response to a malformed input, and how inputs are malformed.

A case is the name of a class of faults and a seed: both are in the name of its test, so that
``pytest -m slow 'tests/fuzz/test_data.py::test_...[own.csv-bytes-17]'`` repeats it.
"""

import contextlib
import io
import json
import os
import pickle
import random
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from ..helpers import command_line, seeds_of_fuzz

CANARY = "executed"  # a folder that code in an input would make

# Values of a wrong type, size or meaning, for JSON and (as text) for a command line.
ODD_VALUES: list[Any] = [
    None, True, False, 0, 1, -1, 2, 7, 2**31, 2**63, 10**30, 10**400, 0.5, -0.0, 1e308, -1e-320,
    float("nan"), float("inf"), float("-inf"), "", " ", "x", "0", "1", "nan", "null", "true",
    "\n", "a\nb", "\u202eabc", "\ud800", "\0", "é" * 300, "x" * 100_000, "../../outside",
    "/nowhere/at/all", "${oc.env:HOME}", "<script>alert(1)</script>", "|`$(touch executed)`",
    "!!python/object/apply:os.mkdir [executed]", [], [[]], [0], ["x"], [None], ["x", "x"],
    [1, "x", None], {}, {"x": 1}, {"": {}}, {"name": "x"}, {"x": {"y": {"z": [{}]}}},
]  # fmt: skip


def cases(kinds: Sequence[str], faults: Sequence[str], seeds: int) -> pytest.MarkDecorator:
    """Run a test for each kind of input, class of faults and seed.

    Args:
        kinds: kinds of inputs.
        faults: names of the classes.
        seeds: number of cases of each of them; see ``seeds_of_fuzz``.
    """
    found = [(k, f, seed) for k in kinds for f in faults for seed in seeds_of_fuzz(seeds)]
    ids = [f"{kind}-{fault}-{seed}" for kind, fault, seed in found]
    return pytest.mark.parametrize(("kind", "fault", "seed"), found, ids=ids)


def random_of(*case: object) -> random.Random:
    """The random numbers of a case."""
    return random.Random(" ".join(map(str, case)))


class Evil:
    """Creates the canary's folder when unpickled."""

    def __init__(self, folder: Path):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder / CANARY),)


@dataclass
class Answer:
    """The response of a program.

    Attributes:
        code: exit status.
        out, err: what it printed.
        written: paths outside of the folders named that it wrote to.
    """

    code: int
    out: str
    err: str
    written: list[str]


def ask(module: str, *words: str, named: Sequence[Path]) -> Answer:
    """Run ``python -m <module> <words>`` in this process and watch it.

    Args:
        module: the program.
        words: words of its command line.
        named: folders that it may write to.
    """
    with watched(named) as written:
        try:
            done = command_line(*words, module=module)
        except Exception:
            return Answer(1, "", traceback.format_exc(), written)
    return Answer(done.returncode, done.stdout, done.stderr, written)


def check(answer: Answer, folder: Path) -> None:
    """Success, or one line and a non-zero exit; nothing executed, nothing written elsewhere.

    Args:
        answer: answer of a program.
        folder: folder in which code of an input would leave a trace.
    """
    assert "Traceback" not in answer.err, answer.err[-3000:]
    assert not answer.written
    assert not list(folder.rglob(CANARY)) and not Path(CANARY).exists()
    told = [line for line in answer.err.splitlines() if line.startswith("error: ")]
    assert bool(told) == (answer.code != 0), (answer.code, answer.err)
    for line in told:
        check_line(line)


def check_line(line: str) -> None:
    """A message is one line that a terminal shows literally."""
    assert line.isprintable(), repr(line)
    assert len(line) < 1600, f"{len(line)} characters: {line[:300]}"


_watching: list[tuple[tuple[str, ...], list[str]]] = []
_WRITES = {
    "os.mkdir": (0,), "os.remove": (0,), "os.rename": (0, 1), "os.link": (1,), "os.rmdir": (0,),
    "os.symlink": (1,), "os.truncate": (0,), "shutil.rmtree": (0,), "shutil.move": (1,),
    "shutil.copyfile": (1,), "shutil.copytree": (1,), "os.chmod": (0,),
}  # fmt: skip
_EXECUTE = ("os.system", "os.exec", "os.posix_spawn", "subprocess.Popen", "ctypes.dlopen")
_FLAGS = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    if not _watching:
        return
    allowed, written = _watching[-1]
    if event == "open":
        path, _, flags = arguments
        paths = [path] if isinstance(path, str | bytes) and flags & _FLAGS else []
    elif event in ("os.remove", "os.rmdir") and arguments[1] != -1:
        return  # of shutil.rmtree, whose own event comes first
    elif event in _WRITES:
        paths = [arguments[index] for index in _WRITES[event]]
    else:
        return
    for path in map(os.fsdecode, (path for path in paths if not isinstance(path, int))):
        whole = os.path.realpath(path)
        if event == "os.mkdir" and os.path.isdir(whole):  # it changes nothing
            continue
        if not whole.startswith(allowed) and "__pycache__" not in whole:
            written.append(f"{event} {whole}")


sys.addaudithook(_audit)


@contextlib.contextmanager
def watched(named: Sequence[Path]) -> Iterator[list[str]]:
    """Record what the block writes, creates, moves or removes outside of some folders.

    Args:
        named: the folders.

    Yields:
        The growing list of these paths.
    """
    allowed = tuple(os.path.realpath(folder) for folder in (*named, os.devnull, "/proc/self"))
    written: list[str] = []
    _watching.append((allowed, written))
    try:
        yield written
    finally:
        _watching.pop()


# Malformed bytes.


def damaged(content: bytes, rng: random.Random) -> bytes:
    """A file's content after damage that ignores its format."""
    return rng.choice(DAMAGES)(content, rng)


def _flipped(content: bytes, rng: random.Random) -> bytes:
    changed = bytearray(content)
    for _ in range(rng.choice([1, 1, 3, 30])):
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def _inserted(content: bytes, rng: random.Random) -> bytes:
    place = rng.randrange(len(content))
    return content[:place] + rng.choice(PIECES) + content[place:]


PIECES = (
    b"\0", b"\xff", b"\xed\xa0\x80", b"\xef\xbb\xbf", b"\r", b"\n", b"\n\n", b"\t", b'"', b"\\",
    b"\x1b[2J", b"\xe2\x80\xa8", b"\xf0\x9f\x98\x80", b"PK\x03\x04", b"[" * 2000, b"9" * 5000,
)  # fmt: skip
DAMAGES: tuple[Callable[[bytes, random.Random], bytes], ...] = (
    _flipped,
    _inserted,
    lambda content, rng: b"",
    lambda content, rng: rng.choice(PIECES),
    lambda content, rng: content[: rng.randrange(len(content))],
    lambda content, rng: content[rng.randrange(len(content)) :],
    lambda content, rng: content + content[: rng.randrange(len(content))],
    lambda content, rng: rng.randbytes(rng.choice([1, 10, 1000])),
    lambda content, rng: content.replace(b"\n", rng.choice([b"\r\n", b"\r", b""])),
    lambda content, rng: content.decode("utf-8", "replace").encode("utf-16"),
    lambda content, rng: pickle.dumps(Evil(Path.cwd()), protocol=rng.randrange(6)),
)


# Malformed JSON values.


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of every value inside a value, excluding itself."""
    items = value.items() if isinstance(value, dict) else ()
    for key, inner in [*items, *(enumerate(value) if isinstance(value, list) else ())]:
        yield (*path, key)
        yield from places(inner, (*path, key))


def _holder(value: Any, path: tuple[Any, ...]) -> Any:
    for key in path[:-1]:
        value = value[key]
    return value


def _replace(value: Any, path: tuple[Any, ...], rng: random.Random) -> None:
    _holder(value, path)[path[-1]] = rng.choice(ODD_VALUES)


def _remove(value: Any, path: tuple[Any, ...], rng: random.Random) -> None:
    del _holder(value, path)[path[-1]]


def _rename(value: Any, path: tuple[Any, ...], rng: random.Random) -> None:
    holder, name = _holder(value, path), path[-1]
    if isinstance(holder, dict):
        holder[rng.choice([f"{name}x", "", "a\nb", "__class__", f" {name}"])] = holder.pop(name)
    else:
        holder.append(rng.choice(ODD_VALUES))


def _retype(value: Any, path: tuple[Any, ...], rng: random.Random) -> None:
    holder, name = _holder(value, path), path[-1]
    found = holder[name]
    holder[name] = rng.choice(
        [str(found), [found], {"value": found}, json.dumps(found), [found, found]]
    )


def _swap(value: Any, path: tuple[Any, ...], rng: random.Random) -> None:
    other = rng.choice([*places(value)])
    holder, name = _holder(value, path), path[-1]
    holder[name] = json.loads(json.dumps(_holder(value, other)[other[-1]]))


VALUE_FAULTS: dict[str, Callable[[Any, tuple[Any, ...], random.Random], None]] = {
    "replace": _replace,
    "remove": _remove,
    "rename": _rename,
    "retype": _retype,
    "swap": _swap,
}


def mutated(value: Any, fault: str, rng: random.Random) -> Any:
    """A copy of a JSON value with one fault.

    Args:
        value: an object or a list.
        fault: one of VALUE_FAULTS.
        rng: chooses the place and the new value.
    """
    changed = json.loads(json.dumps(value))
    found = [*places(changed)]
    depth = rng.choice(sorted({len(path) for path in found}))  # else most are the deepest ones
    VALUE_FAULTS[fault](changed, rng.choice([p for p in found if len(p) == depth]), rng)
    return changed


def write_json(path: Path, value: Any) -> None:
    """As Python's own JSON, which allows NaN and surrogates."""
    path.write_text(json.dumps(value))


def quietly(function: Callable[[], Any]) -> tuple[Any, str]:
    """What a function returns and prints on stderr."""
    err = io.StringIO()
    with contextlib.redirect_stderr(err):
        return function(), err.getvalue()
