"""Files and folders appear whole or not at all; damaged ones are told."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch

from lora_bench import checkpoint
from lora_bench.files import host_name, parse_json, remove_parts, whole_file, whole_folder
from lora_bench.tasks.encoding import Encoded, cached


@pytest.fixture
def dead() -> int:
    """The number of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def part(name: str, process: int, host: str = host_name()) -> str:
    return f".{name}@{host}-{process}.part"


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path):
    path = tmp_path / "new" / "file"
    with whole_file(path) as unfinished:
        unfinished.write_text("first")
        assert not path.exists()
    with pytest.raises(KeyError), whole_file(path) as unfinished:
        unfinished.write_text("half")
        raise KeyError
    assert path.read_text() == "first" and os.listdir(path.parent) == ["file"]


def test_a_folder_is_replaced_whole_or_not_at_all(tmp_path):
    folder = tmp_path / "folder"
    for content in ("first", "second"):
        with whole_folder(folder) as unfinished:
            (unfinished / content).write_text(content)
        assert os.listdir(folder) == [content]
    with pytest.raises(KeyError), whole_folder(folder) as unfinished:
        (unfinished / "third").write_text("half")
        raise KeyError
    assert os.listdir(folder) == ["second"] and os.listdir(tmp_path) == ["folder"]
    (tmp_path / "file").write_text("in its place")
    with whole_folder(tmp_path / "file") as unfinished:
        (unfinished / "content").touch()
    assert os.listdir(tmp_path / "file") == ["content"] and len(os.listdir(tmp_path)) == 2


def test_what_a_killed_process_left_is_removed_and_that_of_others_is_not(tmp_path, dead):
    kept = [part("a.new", os.getpid()), part("b.new", dead, "elsewhere"), "own.part", ".x.part"]
    for name in (*kept, part("c.new", dead)):
        (tmp_path / name).write_text("")
    (tmp_path / part("d.new", dead)).mkdir()
    moved = tmp_path / part("adapter.old", dead)  # killed between the two renames
    moved.mkdir()
    (moved / "weights").write_text("")
    (tmp_path / part("there.old", dead)).mkdir()
    (tmp_path / "there").mkdir()
    remove_parts(tmp_path)
    assert sorted(os.listdir(tmp_path)) == sorted([*kept, "adapter", "there"])
    assert os.listdir(tmp_path / "adapter") == ["weights"]


@pytest.mark.parametrize("after", range(4))
def test_a_killed_save_leaves_the_adapter_as_it_was(adapter, after):
    """The process ends without clean-up at each step of the second save."""
    folder = adapter("task=cola")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    child = os.fork()
    if child == 0:
        steps = iter([None] * after)

        def dying(real):
            def step(*arguments):
                if next(steps, "die") == "die":
                    os._exit(0)
                return real(*arguments)

            return step

        os.replace, os.fsync = dying(os.replace), dying(os.fsync)
        checkpoint.write(folder, {"a": torch.zeros(2)}, checkpoint.spec_of(folder))
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    remove_parts(folder.parent)
    assert not list(folder.parent.glob(".*"))


def test_a_folder_with_other_files_is_not_replaced(adapter):
    folder = adapter("task=cola")
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(checkpoint.AdapterError, match=r"holds notes.txt; must be empty or an"):
        checkpoint.write(folder, {"a": torch.zeros(2)}, checkpoint.spec_of(folder))
    assert (folder / "notes.txt").read_text() == "mine"


DAMAGE = {
    "nothing": lambda content: b"",
    "a byte": lambda content: content[:9],
    "cut": lambda content: content[:-7],
    "more": lambda content: content + b"x",
    "one bit": lambda content: content[:-200] + bytes([content[-200] ^ 4]) + content[-199:],
    "text": lambda content: b"no arrays at all " * 9,
    "another file": lambda content: content[:32] + content[:32] + content[32:],
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_cache_file_is_built_again_and_said_once(tmp_path, capsys, kind):
    encoded = Encoded.from_lists([[1, 2], [3]], None, np.array([0, 1]))
    cached(tmp_path, "rows", lambda: encoded)
    (path,) = tmp_path.glob("*.npz")
    path.write_bytes(DAMAGE[kind](path.read_bytes()))
    assert not capsys.readouterr().err
    again = cached(tmp_path, "rows", lambda: encoded)
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and f"{path}: is damaged" in said
    stored = cached(tmp_path, "rows", pytest.fail)
    assert np.array_equal(stored.input_ids, again.input_ids)
    assert not capsys.readouterr().err and os.listdir(tmp_path) == [path.name]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "line 1 column 1: Expecting value"),
        ('{"a": 1,\n x}', "line 2 column 2"),
        ("[" * 100_000, "is nested too deeply"),
        ('{"a": ' + "9" * 5000 + "}", "Exceeds the limit"),
        ('[{"a": 1, "b": 2, "a": 3}]', "an object has the key 'a' twice"),
    ],
)
def test_invalid_json_gives_a_one_line_error(text, message):
    with pytest.raises(ValueError, match=message) as caught:
        parse_json(text)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 200


def test_other_json_is_read_as_it_is():
    value = {"a": [1, -2.5, None, True, "é\u2028"], "": {}}
    assert parse_json(json.dumps(value)) == value


def test_a_folder_that_cannot_be_replaced_is_still_there(tmp_path, monkeypatch):
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "old").touch()
    replace, calls = os.replace, []

    def fails_second(*paths):
        calls.append(paths)
        if len(calls) == 2:
            raise OSError("no")
        replace(*paths)

    monkeypatch.setattr(os, "replace", fails_second)
    with pytest.raises(OSError, match="no"), whole_folder(folder) as unfinished:
        (unfinished / "new").touch()
    assert os.listdir(tmp_path) == ["folder"] and os.listdir(folder) == ["old"]
