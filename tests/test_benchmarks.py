"""The benchmarks run, and the documents report the measured speed."""

import json

import pytest

from benchmarks import group, profile, report, speed, sweep
from benchmarks.systems import systems
from benchmarks.workload import DECILES, Workload, generated
from lora_bench.report.readme import README, with_block

from .helpers import TASKS, write_official

LOG = README.parent / "results" / "speed" / "speed.jsonl"


@pytest.fixture(scope="module")
def measured():
    return [json.loads(line) for line in LOG.read_text().splitlines()]


def test_the_readme_and_the_table_hold_the_committed_measurements(measured):
    shown = with_block(README, "speed", speed.headline(measured))
    assert shown == README.read_text()
    assert (LOG.parent / "speed.md").read_text() == speed.report(measured)


def test_every_cell_of_the_table_has_all_rounds_and_no_path_of_a_machine(measured):
    rounds = sorted({one["round"] for one in measured})
    cells: dict[str, dict[str, list[int]]] = {}
    for one in measured:
        cell = cells.setdefault(json.dumps(one["workload"], sort_keys=True), {})
        cell.setdefault(one["system"], []).append(one["round"])
    for cell in cells.values():
        grouped = {Workload("mrpc").grouped}
        assert set(cell) - grouped == {speed.RATE, *systems(Workload("mrpc"))} - grouped
        assert all(sorted(found) == rounds for found in cell.values())
    assert "/" not in "".join(cells)


def test_a_speed_up_is_of_two_measurements_of_one_round():
    work = speed.facts(Workload("mrpc"))
    common = {"workload": work, "examples": 10, "tokens": 100, "flop": 1e9}
    lines = []
    for round_, (ours, theirs) in enumerate([(1.0, 2.0), (10.0, 30.0), (2.0, 8.0)]):
        here = {"round": round_, "workload": work}
        lines.append(here | {"system": speed.RATE, "flop_per_second": 1e10, "machine": "m"})
        lines.append(here | common | {"system": "lora-bench", "seconds": ours})
        lines.append(here | common | {"system": "other", "seconds": theirs})
    table = speed.report(lines)
    assert "| 3.00 [2.00, 4.00] |" in table  # 3 = the median of 2, 3 and 4
    assert "| 5 % [1, 10]" in table  # 1e9 FLOP in 2 s at 1e10 FLOP/s


@pytest.mark.parametrize("program", [speed, group])
def test_a_wrong_word_gives_a_one_line_error(program, capsys, tmp_path):
    for words in (["--rows", "0"], ["--rounds", "1.5"], ["--tasks", "nosuch"]):
        with pytest.raises(SystemExit, match="2"):
            program.main(words)
        error = capsys.readouterr().err
        assert words[0] in error and words[1] in error
    with pytest.raises(SystemExit, match="error: data.root=/nowhere: "):
        program.main(["--glue", "/nowhere", "--out", str(tmp_path)])


def test_generated_rows_have_the_lengths_of_the_real_ones():
    for task, deciles in DECILES.items():
        lengths = generated(task, 2000).lengths
        assert deciles[0] <= lengths.min() and lengths.max() <= deciles[-1]
        assert abs(sorted(lengths)[1000] - deciles[5]) <= 0.1 * deciles[5]


@pytest.mark.slow
@pytest.mark.parametrize(("task", "method"), [("sst2", "lora"), ("squad_v1", "full")])
@pytest.mark.filterwarnings("ignore")  # of transformers and PEFT
def test_every_system_trains(task, method):
    work = Workload(task, rows=4, batch_size=2, method=method)
    assert all(system(work) > 0 for system in systems(work).values())


def test_the_gain_of_a_group_is_of_two_measurements_of_one_round(tmp_path):
    work = speed.facts(Workload("sst2"))
    lines = [
        {"workload": work, "size": size, "round": round_, "seconds": seconds, "tokens": 100}
        | {"peak_memory_bytes": 2**30, "machine": "m"}
        for round_, pair in enumerate([(1.0, 0.5), (10.0, 2.5), (2.0, 0.25)])
        for size, seconds in zip((1, 8), pair, strict=True)
    ]
    text = group.report(lines)
    assert "| 4.00 [2.00, 8.00] |" in text and "| 1.00 GiB" in text
    group.picture(lines, tmp_path / "group.svg")
    assert "runs in one pass" in (tmp_path / "group.svg").read_text()


def test_a_table_of_groups_holds_one_workload_of_each_task(tmp_path, monkeypatch, capsys):
    fake = {"tokens": 100, "peak_memory_bytes": 2**30}
    monkeypatch.setattr(group, "in_own_process", lambda *_: fake | {"seconds": next(seconds)})
    words = ["--tasks", "sst2", "--sizes", "1", "--rounds", "1", "--out", str(tmp_path)]
    seconds = iter([1.0, 4.0])
    group.main([*words, "--rank", "8"])
    group.main([*words, "--rank", "16"])
    assert "| 25 [25, 25] " in (tmp_path / "group.md").read_text()  # not 62.5, the mean of both
    monkeypatch.setattr(group, "describe", lambda _: "another machine")
    seconds = iter([10.0])
    group.main([*words, "--rank", "8"])  # is measured there too
    assert "| 10 [10, 10] " in (tmp_path / "group.md").read_text()


def test_workloads_that_differ_in_any_fact_have_rows_of_their_own():
    works = [speed.facts(Workload("mrpc", rows=64))]
    works += [works[0] | {"data": "official files"}, works[0] | {"device": "cuda"}]
    lines = []
    for seconds, work in enumerate(works, start=1):
        common = {"workload": work, "round": 0}
        timed = {"seconds": seconds, "examples": 6, "tokens": 6, "flop": 1e9}
        lines.append(common | {"system": speed.RATE, "flop_per_second": 1e10, "machine": "m"})
        lines.append(common | timed | {"system": "lora-bench"})
    table = speed.report(lines)
    assert all(f"| {rate}.0 [{rate}.0, {rate}.0] " in table for rate in (6, 3, 2))


@pytest.mark.slow
def test_group_sizes_are_measured_once(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(group, "SIZES", (1, 2))
    words = ["--tasks", "sst2", "--rows", "4", "--rounds", "1", "--out", str(tmp_path)]
    group.main(words)
    shown = capsys.readouterr().out
    group.main(words)
    assert capsys.readouterr().out == shown and shown.count("| sst2 ") == 2


@pytest.mark.slow
def test_a_profile_names_where_a_step_goes():
    wall, events = profile.measure(Workload("sst2", rows=8, batch_size=2), steps=2)
    table = profile.table(wall, events)
    assert "| matrix products" in table and "_Affine" in table


@pytest.mark.slow
def test_a_sweep_is_timed_from_command_to_table_and_not_again(tmp_path, capsys):
    write_official(tmp_path / "glue", TASKS["sst2"])
    words = ["--glue", f"{tmp_path}/glue", "--out", f"{tmp_path}/out", "--seeds", "1"]
    sweep.main([*words, "--rows", "16", "--validation-rows", "8"])
    table = capsys.readouterr().out
    assert all(f"| {name} " in table for name in sweep.SYSTEMS) and "2 runs on SST-2" in table
    sweep.main([*words, "--rows", "16", "--validation-rows", "8"])
    assert capsys.readouterr().out == table


def test_made_up_records_are_runs_of_many_cells():
    records = [report.made_up(number) for number in (*range(10), 200, 1000, 5000)]
    assert len({record.key for record in records}) == len(records)
    cells = {record.identity.cell for record in records}
    assert len(cells) == 5  # two of five seeds, and another rate, rank and batch size


@pytest.mark.slow
def test_tables_and_page_of_made_up_records_are_timed(tmp_path, capsys):
    report.main(["--records", "10", "15", "--rounds", "1", "--out", str(tmp_path)])
    text = capsys.readouterr().out
    assert text == (tmp_path / "report.md").read_text() and "| 10 " in text and "| 15 " in text
