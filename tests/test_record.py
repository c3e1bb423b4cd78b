"""Identity and records: what a run is, and reading every format that was ever written."""

import dataclasses
import functools
import json
import os
import re
from pathlib import Path

import pytest

from lora_bench import plans, provenance, record
from lora_bench.compose import compose
from lora_bench.errors import UserError
from lora_bench.record import Record, RecordError
from lora_bench.spec import NOT_IN_IDENTITY, PROCEDURE, Identity, Spec, Start, part_of, settings

from .helpers import every

COMMITTED = Path(__file__).parent.parent / "results"
OLD = Path(__file__).parent / "format_1"  # records of the first version, of generated data
SCORED = {"epoch": 1, "scores": {"matthews": 0.5}}


def identity_of(spec: Spec) -> Identity:
    return spec.identity(data="d", model="m")


def record_of(spec: Spec, status: str = "ok", **more) -> Record:
    found = identity_of(spec)
    parts = {"where": found.where, "system": found.system, "seed": found.seed}
    facts = {"spec": spec.to_dict(), "command": "c", "started": "now", "provenance": {}}
    if status == "ok":
        facts |= {"last": SCORED, "best": SCORED}
    return Record(key=found.key, status=status, **{**parts, **facts, **more})


def changed(spec: Spec, path: str) -> Spec:
    """The spec with another value of one setting."""
    spec = Spec.from_dict(spec.to_dict())
    *parents, leaf = path.split(".")
    node = functools.reduce(getattr, parents, spec)
    other = 977 if path == "seed" else "changed" if isinstance(getattr(node, leaf), str) else ["x"]
    setattr(node, leaf, other)
    return spec


def test_the_identity_holds_every_setting_that_can_change_a_score():
    spec = compose([])
    before, paths = identity_of(spec), settings(spec)
    for path in paths.keys() - {"init_from"}:  # stands for the adapter behind it, see below
        after = identity_of(changed(spec, path))
        assert (after.key == before.key) == (part_of(path) is None), path
        assert (after.cell == before.cell) == (part_of(path) in (None, "seed")), path
        for part in ("where", "system"):
            assert (getattr(after, part) != getattr(before, part)) == (part_of(path) == part), path
    sections = {path.rpartition(".")[0] for path in paths}
    assert all(name in paths or name in sections for name in NOT_IN_IDENTITY)


def test_arguments_of_methods_and_tasks_are_settings():
    relora, squad = compose(["method=relora"]), compose(["task=squad_v2"])
    assert identity_of(relora).system["method.args.every"] == 100
    assert identity_of(squad).where["task.args.held_out"] == 0.5
    assert "task.args.stride" in identity_of(squad).where  # a default of the kind is stated too


def test_data_model_procedure_and_start_are_part_of_the_identity():
    spec = compose([])
    start = Start("mnli-tiny-lora-r8-0123456789", "weights")
    found = [
        spec.identity(data="d", model="m"),
        spec.identity(data="e", model="m"),
        spec.identity(data="d", model="n"),
        spec.identity(data="d", model="m", start=start),
        spec.identity(data="d", model="m", start=dataclasses.replace(start, fingerprint="others")),
    ]
    assert len({identity.key for identity in found}) == 5
    assert len({identity.cell for identity in found}) == 4  # two starts of one cell are one system
    assert found[0].system["procedure"] == PROCEDURE
    assert found[0].key.startswith("cola-minilm-lora-r8-s0-")


def test_what_only_validates_or_locates_renames_no_run():
    spec = compose(["task=cola"])
    key = identity_of(spec).key
    spec.task.local.patterns["source"] = ".*"
    spec.task.hub.revision = "main"
    spec.model.revision = "main"
    spec.data.root = "/elsewhere"
    spec.task.official_rows["train"] = 1
    assert identity_of(spec).key == key


def test_a_new_setting_renames_no_old_run(monkeypatch):
    spec = compose([])
    before = identity_of(spec)

    @dataclasses.dataclass
    class Newer(Spec):
        novelty: int = 3

    monkeypatch.setattr("lora_bench.spec.Spec", Newer)
    newer = Newer(**{f.name: getattr(spec, f.name) for f in dataclasses.fields(spec)})
    assert identity_of(newer).key == before.key and identity_of(newer).system["novelty"] == 3
    newer.novelty = 4
    assert identity_of(newer).key != before.key


def test_a_record_from_before_a_new_setting_is_the_same_run(tmp_path):
    spec = compose([])
    old = record_of(spec)
    del old.system["train.dropout"]
    record.write(record.folder_of(tmp_path, identity_of(spec)), old)
    _, found = record.find(tmp_path, identity_of(spec))
    assert found == old
    spec.train.dropout = 0.3
    assert record.find(tmp_path, identity_of(spec))[1] is None


def test_a_record_reads_back_as_written(tmp_path):
    before = record_of(compose([]), start={"task": "mnli", "cell": "c", "fingerprint": "f"})
    record.write(tmp_path, before)
    after = record.read(tmp_path)
    assert after == before and after.identity.start == "f"
    assert record.read(tmp_path / "nowhere") is None


def test_a_write_that_breaks_off_leaves_the_old_record(tmp_path, monkeypatch):
    old = record_of(compose([]))
    record.write(tmp_path, old)
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError("disk")))
    with pytest.raises(OSError, match="disk"):
        record.write(tmp_path, record_of(compose([]), status="failed"))
    assert record.read(tmp_path) == old


def test_nan_is_not_written(tmp_path):
    with pytest.raises(ValueError, match="Out of range float"):
        record.write(tmp_path, record_of(compose([]), train_seconds=float("nan")))


def every_field_broken() -> list[tuple[str, object]]:
    """(field, a value of another type) for every field of a record."""
    broken = [(field.name, object) for field in dataclasses.fields(Record)]
    return [
        (name, {"a": []} if name in ("key", "status", "seed", "format") else 7.5)
        for name, _ in broken
    ]


@pytest.mark.parametrize("broken", every(4, every_field_broken()))
def test_a_field_of_another_type_gives_a_one_line_error_that_names_it(tmp_path, broken):
    name, value = broken
    if name.endswith("seconds") or name.endswith("per_second"):
        value = "fast"
    content = dataclasses.asdict(record_of(compose([]))) | {name: value}
    (tmp_path / record.FILE).write_text(json.dumps(content))
    with pytest.raises(RecordError) as caught:
        record.read(tmp_path)
    assert "\n" not in str(caught.value) and record.FILE in str(caught.value)
    assert name in str(caught.value) or name == "format"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "cannot be read .* move it away to run again"),
        ("{", "cannot be read"),
        ("\ufeff{}", "cannot be read .*BOM.*; move it away to run again"),
        ('{"format": 2, "where": ' + "[" * 500 + "]" * 500 + "}", "record.json: Invalid JSON"),
        ("[]", "is not a record"),
        ('{"key": "x"}', "is not a record; must be an object with a format number"),
        ('{"format": 99}', "has format 99; this version reads 1 to 2: update lora-bench"),
        ('{"format": 1}', "is malformed for format 1: 'spec'"),
        ('{"format": 2, "novelty": 1}', "novelty|key"),
    ],
)
def test_what_is_no_record_is_refused_and_listed(tmp_path, text, message):
    """Neither silently skipped nor taken for a run that is still to do."""
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / record.FILE).write_text(text)
    with pytest.raises(RecordError, match=message):
        record.read(tmp_path / "a")
    record.write(tmp_path / "b", record_of(compose([])))
    found, problems = record.read_all(tmp_path)
    assert len(found) == 1 and len(problems) == 1 and str(tmp_path / "a") in problems[0]


def test_an_unreadable_record_is_not_overwritten(tmp_path):
    spec = compose([])
    folder = record.folder_of(tmp_path, identity_of(spec))
    folder.mkdir(parents=True)
    (folder / record.FILE).write_text('{"format": 99}')
    with pytest.raises(RecordError, match="has format 99"):
        record.find(tmp_path, identity_of(spec))


def test_format_1_is_upgraded_with_its_identity():
    """Results of the first version: none is lost, all are of procedure 1."""
    old, problems = record.read_all(OLD)
    assert len(old) == len(list(OLD.iterdir())) and problems == []
    assert {one.system["procedure"] for one in old} == {1}
    for one in old:
        assert one.where["task.name"] == one.spec["task"]["name"]
        assert one.system["train.lr"] == one.spec["train"]["lr"]
        assert one.where["model.fingerprint"] == "unknown"
    keys = {one.key: one.identity.key for one in old}
    assert len(set(keys.values())) == len(set(keys))


def test_no_result_of_an_older_procedure_is_committed():
    found, problems = record.read_all(COMMITTED)
    # a study counts procedures of its own
    procedures = {one.system["procedure"] for one in found if "study" not in one.where}
    assert (procedures, problems) == ({PROCEDURE}, [])


FORMAT_1 = {
    "key": "rte-tiny-lora-r8-s3-0123456789",
    "status": "ok",
    "spec": {
        "task": {
            "name": "squad_v2", "kind": "span", "metrics": ["matthews"], "unanswerable": True,
            "stride": 64,
        },
        "model": {"name": "tiny", "source": "random:tiny", "revision": None},
        "method": {
            "name": "peft_lora", "rank": 4, "alpha": 8.0, "lr_ratio": None,
            "args": {"r": 4, "lora_alpha": 8.0, "use_dora": True},
        },
        "data": {"source": "toy", "seed": 1},
        "train": {"epochs": 1, "batch_size": 8, "lr": 0.1},
        "init_from": "out/runs/mnli/mnli-tiny-lora-r8-s3-0123456789/adapter",
        "seed": 3,
    },
    "command": "c",
    "started": "now",
    "provenance": {},
    "data": {"train": {"fingerprint": "aa"}, "validation": {"fingerprint": "bb"}},
    "last": SCORED,
    "best": SCORED,
    "format": 1,
}  # fmt: skip


def test_every_change_since_format_1_is_translated(tmp_path):
    (tmp_path / record.FILE).write_text(json.dumps(FORMAT_1))
    found = record.read(tmp_path)
    assert found.where["task.args.unanswerable"] is True and found.where["task.args.stride"] == 64
    assert found.system["method.args.use_dora"] is True
    assert "method.args.r" not in found.system and "method.args.lr_ratio" not in found.system
    assert found.system["procedure"] == 1 and found.seed == 3
    assert found.start["task"] == "mnli" and found.start["cell"] == "mnli-tiny-lora-r8"
    assert found.system["init_from"] == "mnli-tiny-lora-r8"
    plus = json.loads(json.dumps(FORMAT_1))
    plus["spec"]["method"] = {"name": "lora_plus", "rank": 4, "alpha": 8.0, "lr_ratio": 16.0}
    (tmp_path / record.FILE).write_text(json.dumps(plus))
    assert record.read(tmp_path).system["method.args.lr_ratio"] == 16.0


def test_seeds_of_pefts_projections_are_stated_for_format_1(tmp_path):
    """They were PEFT's constants; now each run has its own."""
    old = json.loads(json.dumps(FORMAT_1))
    for kind, arg, value in (
        ("VERA", "projection_prng_key", 0),
        ("FOURIERFT", "random_loc_seed", 777),
    ):
        old["spec"]["method"] = {"name": "x", "peft_type": kind, "args": {}}
        (tmp_path / record.FILE).write_text(json.dumps(old))
        assert record.read(tmp_path).system[f"method.args.{arg}"] == value
    old["spec"]["method"] = {"name": "x", "peft_type": "LORA", "args": {"use_rslora": True}}
    (tmp_path / record.FILE).write_text(json.dumps(old))
    found = record.read(tmp_path).system
    assert found["method.rank_stabilized"] is True and "method.args.use_rslora" not in found


@pytest.mark.parametrize(
    "field, value, message",
    [
        ("last", {"epoch": 1, "scores": {"matthews": "high"}}, "last.scores.matthews: must be a"),
        ("last", {"epoch": 1, "scores": {"matthews": 10**30}}, "last.scores.matthews: must be a"),
        ("last", {"epoch": 1, "scores": {}}, "last.scores: must map a metric to its score"),
        ("last", None, "last: is null although status is ok; move the file away to run again"),
        ("best", None, "best: is null although status is ok"),
        ("epochs", [{"epoch": 1, "loss": 1.0}], "epochs.0.scores: must be of type dict, is None"),
        ("data", {"train": {"rows": "all"}}, "data.train.rows: must be a number of rows"),
        ("data", {"validation": {"chance": 0.5}}, "data.validation.chance: must map a metric"),
        ("where.task.name", None, "where.task.name: must be of type str"),
        ("where.task.validation", [1], "where.task.validation: must be a list of texts"),
        ("system.method.rank", "8", "system.method.rank: must be of type int, is '8'"),
        ("provenance", {"commit": 1}, "provenance.commit: must be of type str"),
        ("provenance", {"threads": "2"}, "provenance.threads: must be of type int, is '2'"),
        ("spec.task", {"official_rows": "all"}, "spec.task.official_rows: must map splits to rows"),
    ],
)
def test_nested_fields_of_another_type_are_named(tmp_path, field, value, message):
    content = json.loads(json.dumps(dataclasses.asdict(record_of(compose([])))))
    part, _, path = field.partition(".")
    if path:
        content[part][path] = value
    else:
        content[part] = value
    (tmp_path / record.FILE).write_text(json.dumps(content))
    with pytest.raises(RecordError, match=f"{record.FILE}: {message}"):
        record.read(tmp_path)


@pytest.mark.parametrize(
    "section, changes, message",
    [
        ("train", {"max_length": "64"}, "spec.train.max_length: must be a valid integer"),
        ("task", {"labels": "01"}, "spec.task.labels: must be a valid array"),
        ("task", {"name": "???"}, "spec: lacks task.name"),
        ("method", {"novelty": 1}, "unexpected keyword argument 'novelty'"),
    ],
)
def test_settings_that_this_version_cannot_use_are_named(section, changes, message):
    found = record_of(compose(["task=cola"]))
    assert record.spec_of(found) == Spec.from_dict(found.spec)
    found.spec[section] |= changes
    with pytest.raises(RecordError, match=f"^{found.key}: .*{message}"):
        record.spec_of(found)


def whole_numbers(part, place=()):
    """Places of the whole numbers of a record."""
    if isinstance(part, dict | list):
        entries = part.items() if isinstance(part, dict) else enumerate(part)
        for name, value in entries:
            yield from whole_numbers(value, (*place, name))
    elif type(part) is int and place != ("format",):
        yield place


def test_a_whole_number_that_no_array_takes_is_refused_wherever_it_stands(tmp_path):
    made = dataclasses.asdict(record_of(compose([])))
    made |= {"parameters": {"total": 1}, "adapter_bytes": 1, "group": {"size": 2}}
    places = list(whole_numbers(made))
    assert len(places) > 20
    for place in places:
        content = json.loads(json.dumps(made))
        part = functools.reduce(lambda inside, name: inside[name], place[:-1], content)
        part[place[-1]] = 10**400
        (tmp_path / record.FILE).write_text(json.dumps(content))
        with pytest.raises(RecordError, match=f"{record.FILE}: .*{place[-1]}"):
            record.read(tmp_path)


def test_runs_behind_symbolic_links_are_read_once_and_circles_end(tmp_path):
    record.write(tmp_path / "disk" / "run", record_of(compose([])))
    plans.write_plan(tmp_path / "disk", "command", ["key"])
    root = tmp_path / "results"
    root.mkdir()
    (root / "moved").symlink_to(tmp_path / "disk")
    (root / "again").symlink_to(tmp_path / "disk" / "run")
    (tmp_path / "disk" / "circle").symlink_to(root)
    found, problems = record.read_all(root)
    assert len(found) == 1 and not problems
    assert len(plans.read_plans(root)[0]) == 1


def test_a_plan_that_cannot_be_written_gives_a_one_line_error_that_names_it(tmp_path):
    plans.write_plan(tmp_path, "command", ["key"])
    (plan,) = (tmp_path / plans.FOLDER).glob("*.json")
    plan.unlink()
    plan.mkdir()
    with pytest.raises(UserError, match=f"^{re.escape(str(plan))}: cannot be written"):
        plans.write_plan(tmp_path, "command", ["key"])


def test_a_damaged_plan_gives_a_one_line_error_and_the_others_are_read(tmp_path):
    plans.write_plan(tmp_path, "command", ["key"])
    for name, text in (("a", "{"), ("b", '{"command": "c"}'), ("c", '{"command": 1, "keys": 2}')):
        (tmp_path / plans.FOLDER / f"{name}.json").write_text(text)
    found, problems = plans.read_plans(tmp_path)
    assert [plan.keys for plan in found] == [["key"]] and len(problems) == 3
    assert all("is not a sweep plan" in p and "\n" not in p for p in problems)


def test_a_threshold_is_no_score():
    scores = {"f1": 0.5, "best_f1": 0.613, "best_f1_thresh": -3.0, "chosen_thresh": 2.0}
    assert record.scores_text(scores, digits=1) == "f1 50.0, best_f1 61.3"


def test_without_git_a_record_has_no_commit(monkeypatch):
    def missing(*_, **__):
        raise FileNotFoundError("git")

    monkeypatch.setattr(provenance.subprocess, "run", missing)
    assert provenance._git.__wrapped__("rev-parse", "HEAD") is None
