"""The tuned learning rates as a table and as pictures, from made-up tuning curves."""

import itertools

import numpy as np
import pandas as pd
import pytest
import yaml
from matplotlib import pyplot as plt

from lora_bench import tuned
from lora_bench.presets import CONF
from lora_bench.report import tuning
from lora_bench.report.__main__ import main
from lora_bench.report.layout import DEFAULT
from lora_bench.report.pictures import FORMATS, expected_best_scores, style, tuning_curves

GRID = [0.001, 0.01, 0.1]
# two rates were added around 0.01
ENTRIES = {
    "full": {0.001: 0.4, 0.003: 0.6, 0.01: 0.8, 0.03: 0.5, 0.1: 0.3},
    "lora": {0.001: 0.1, 0.01: 0.5, 0.03: 0.6, 0.1: 0.7, 0.3: 0.2},
}


def entry(method: str, task: str = "cola", **more) -> dict:
    curve = [{"lr": lr, "epochs": 3, "scores": [s]} for lr, s in ENTRIES[method].items()]
    return {
        "lr": max(ENTRIES[method], key=ENTRIES[method].__getitem__),
        "metric": "matthews",
        "budget": {"rates": GRID, "halving": False},
        "settings": {"task.name": task, "data.source": "official", "method.name": method},
        "curve": curve,
        **more,
    }


def write(folder, *entries):
    folder.mkdir(exist_ok=True)
    for i, content in enumerate(entries):
        (folder / f"{i}.yaml").write_text(yaml.safe_dump(content))
    return folder


def figures(folder) -> dict[str, plt.Figure]:
    curves = curves_of(folder)
    with plt.rc_context(style.STYLE):
        return {**dict(tuning_curves(curves)), **dict(expected_best_scores(curves))}


def curves_of(folder):
    return tuning.load_curves(sorted(folder.glob("*.yaml")), DEFAULT)


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    plt.close("all")


def test_the_command_shows_rates_and_the_expected_best_of_the_grid(tmp_path, capsys, monkeypatch):
    monkeypatch.delitem(FORMATS, "pdf")
    folder = write(tmp_path / "tuned", entry("full"), entry("lora"), entry("full", "rte"))
    monkeypatch.setattr(tuned, "FOLDERS", (folder,))
    main(["tuning", "--tasks", "cola", "--out", str(tmp_path)])
    assert "Learning rate" in capsys.readouterr().out
    rows = pd.read_csv(tmp_path / "tables" / "tuning_last.csv").set_index("system")
    assert rows.lr.to_dict() == {"full": 0.01, "lora": 0.1} and set(rows.task) == {"cola"}
    assert rows.score.to_dict() == {"full": 80.0, "lora": 70.0} and set(rows.trials) == {5}
    assert rows["at the end"].isna().all()
    pairs = itertools.combinations([ENTRIES["lora"][lr] for lr in GRID], 2)
    assert rows.loc["lora", "best of 2"] == pytest.approx(
        100 * np.mean([*map(max, pairs)]), abs=0.1
    )
    assert rows["best of 4"].isna().all()  # the grid has three rates
    drawn = {path.name for path in (tmp_path / "pictures" / "tuning").iterdir()}
    assert drawn == {"curves_cola.svg", "budget_cola.svg"}


def test_a_rate_at_the_end_of_those_tried_is_named(tmp_path):
    ends = entry("full"), entry("lora")
    ends[0]["lr"], ends[1]["lr"] = 0.001, 0.3
    table = tuning.tuning_table(curves_of(write(tmp_path / "t", *ends)))
    assert table.rows["at the end"].tolist() == ["lowest", "highest"]


def test_rates_that_scored_as_well_as_the_chosen_one_are_named(tmp_path):
    tied = entry("full")
    tied["curve"][3]["scores"] = [0.8]
    table = tuning.tuning_table(curves_of(write(tmp_path / "t", tied, entry("lora"))))
    assert table.notes[1:] == ["full on cola: 0.03 scored the same as 0.01."]


def test_a_failed_rate_is_the_worst_draw_and_a_cross_in_its_panel(tmp_path):
    failed = entry("full")
    failed["curve"][4]["scores"] = [0.9, None]
    found = figures(write(tmp_path / "t", failed, entry("lora")))
    line = next(line for line in found["budget_cola"].axes[0].lines if max(line.get_ydata()) == 80)
    assert line.get_ydata() == pytest.approx([(40 + 80 + 40) / 3, 80 * 2 / 3 + 40 / 3, 80])
    panel, other = found["curves_cola"].axes
    (cross,) = [line for line in panel.lines if line.get_marker() == "x"]
    assert list(cross.get_xdata()) == [0.1] and "cross" in found["curves_cola"].get_suptitle()
    (diamond,) = [line for line in panel.lines if line.get_marker() == "D"]
    assert (*diamond.get_xdata(), *diamond.get_ydata()) == (0.01, 80.0)
    assert not [line for line in other.lines if line.get_marker() == "x" and len(line.get_xdata())]


def test_rates_that_were_dropped_early_are_no_random_draws(tmp_path):
    halved = entry("full", budget={"rates": GRID, "halving": True})
    halved["curve"][0]["epochs"] = 1
    curves = curves_of(write(tmp_path / "t", halved))
    assert [trial.lr for trial in curves.trials[0]] == [0.003, 0.01, 0.03, 0.1]
    assert set(figures(tmp_path / "t")) == {"curves_cola"}
    assert pd.isna(tuning.tuning_table(curves).rows["best of 1"][0])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("lr: [", r"0\.yaml: is not a tuning curve"),
        ("lr: 0.1", r"0\.yaml: is not a tuning curve: KeyError"),
        (
            yaml.safe_dump(entry("full", lr=0.5)),
            r"not a tuning curve: ValueError: lr 0\.5 is not on",
        ),
        (yaml.safe_dump(entry("full", settings=[])), "not a tuning curve: AttributeError"),
        (yaml.safe_dump(entry("full", curve=[])), "not a tuning curve: ValueError"),
        (None, "no tuned rates"),
    ],
)
def test_a_damaged_or_missing_curve_gives_a_one_line_error(content, message, tmp_path, monkeypatch):
    monkeypatch.setattr(tuned, "FOLDERS", (tmp_path,))
    if content is not None:
        (tmp_path / "0.yaml").write_text(content)
    with pytest.raises(SystemExit, match=message) as stopped:
        main(["tuning"])
    assert "\n" not in stopped.value.code


def test_committed_curves_make_a_table():
    curves = curves_of(CONF / "tuned")
    assert len(tuning.tuning_table(curves).rows) == len(list(CONF.glob("tuned/*.yaml")))
    assert not curves.duplicated(["place", "label"]).any()
