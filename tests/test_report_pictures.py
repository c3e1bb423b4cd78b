"""Pictures of made-up records: what is drawn, from which runs, and that nothing stops them."""

import itertools
import random
import re
import string
import xml.etree.ElementTree as ET

import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot as plt

from lora_bench.report import load_records
from lora_bench.report.__main__ import main
from lora_bench.report.cells import make_cells
from lora_bench.report.pictures import FORMATS, PICTURES, costs, draw, grids, ranks, scores, style
from lora_bench.spec import Identity
from tests.helpers import mostly_slow, seeds_of_fuzz
from tests.report_records import composed, grid, made_of, made_up


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    plt.close("all")


def figures(runs, *pictures) -> dict[str, plt.Figure]:
    cells = make_cells(runs, "last")
    scored = cells[cells["first"] & (cells.n > 0)]
    with plt.rc_context(style.STYLE):
        return dict(made for picture in pictures or PICTURES for made in picture(scored, runs))


@pytest.fixture(scope="module")
def filled(tmp_path_factory):
    """Runs that fill every picture, and the pictures."""
    folder = tmp_path_factory.mktemp("filled")
    runs = grid(folder / "runs")
    return runs, draw(make_cells(runs, "last"), runs, folder / "pictures"), folder / "pictures"


@pytest.mark.slow
def test_every_picture_is_drawn_as_svg_and_pdf_the_same_twice(filled, tmp_path):
    runs, written, _ = filled
    stems = ("over_rank", "over_alpha", "pareto_parameters", "epochs", "wins", "costs")
    names = {f"{stem}_cola" for stem in stems} | {"heat_cola_lora"}
    assert {path.name for path in written} == {f"{n}.{suffix}" for n in names for suffix in FORMATS}
    again = draw(make_cells(runs, "last"), runs, tmp_path)
    assert [path.read_bytes() for path in again] == [path.read_bytes() for path in written]
    for path in written:
        if path.suffix == ".svg":
            text = path.read_text()
            assert re.search(r'<svg [^>]*width="237\.6pt"', text), path  # 3.3 inches
            assert set(re.findall(r"font: [^;]*px ([^;]*?)[;\"]", text)) <= {"'DejaVu Sans'"}


@pytest.mark.slow
def test_no_file_is_deleted_and_those_of_an_earlier_call_are_named(
    filled, tmp_path, capsys, monkeypatch
):
    monkeypatch.delitem(FORMATS, "pdf")
    runs, written, _ = filled
    folder = tmp_path / "pictures"
    draw(make_cells(runs, "last"), runs, folder)
    mine = {folder / "mine.svg": "<svg/>", folder / "pictures.txt": "over_rank_cola.svg mine.svg"}
    for path, text in mine.items():
        path.write_text(text)
    (tmp_path / "full").mkdir()
    for seed in (0, 1):
        made_up(tmp_path / "full", f"seed={seed}", "method=full", last=0.7)
    main(["plots", "--runs", str(tmp_path / "full"), "--out", str(tmp_path)])
    out, err = capsys.readouterr()
    assert all(path.read_text() == text for path, text in mine.items())
    assert {path.name for path in folder.iterdir()} == {
        *(p.name for p in written if p.suffix == ".svg"), *(p.name for p in mine)}  # fmt: skip
    named = {line.partition(":")[0] for line in err.splitlines()}
    rewritten = set(out.split())  # a picture of one point says nothing: two are left
    assert {name.rpartition("/")[2] for name in rewritten if name.endswith("svg")} == {
        "epochs_cola.svg", "costs_cola.svg"}  # fmt: skip
    assert named == {str(p) for p in folder.glob("*.svg")} - rewritten - {str(folder / "mine.svg")}


def test_one_seed_has_no_interval_and_several_have_one(tmp_path):
    for rank in (2, 4):
        for seed in range(rank // 2):
            made_up(tmp_path, f"method.rank={rank}", f"seed={seed}", last=rank / 10 + seed / 50)
    runs = load_records(tmp_path)
    found = figures(runs, scores.pareto, scores.score_over_settings)
    (points,) = found["pareto_parameters_cola"].axes
    bars = [c.lines[2] for c in points.containers]
    assert sorted(map(len, bars)) == [0, 1]
    (lines,) = found["over_rank_cola"].axes
    assert "95 % interval" in lines.get_ylabel()
    alone = figures(runs[runs.seed == 0], scores.score_over_settings)["over_rank_cola"].axes[0]
    assert "interval" not in alone.get_ylabel()
    assert all(np.isnan(path.vertices).any() or len(path.vertices) == 0
               for band in alone.collections for path in band.get_paths())  # fmt: skip


def test_pareto_counts_parameters_without_the_head_and_the_head_alone_is_a_level(tmp_path):
    made_up(tmp_path, "method.rank=4")
    made_up(tmp_path, "method=full", parameters={"head": 100, "trained": 5100}, last=0.7)
    made_up(tmp_path, "method=head_only", parameters={"head": 100, "trained": 100}, last=0.45)
    (axes,) = figures(load_records(tmp_path), scores.pareto)["pareto_parameters_cola"].axes
    assert sorted(c.lines[0].get_xdata()[0] for c in axes.containers) == [5000, 222338]
    assert "without the head" in axes.get_xlabel()
    assert any("head_only" in text.get_text() for text in axes.texts)


@pytest.mark.parametrize("picture", [scores.over_epochs, scores.score_over_settings])
def test_at_most_eight_lines_with_names_beside_them(picture, tmp_path):
    for i in range(11):
        for lr in (1e-3, 1e-2):
            made_up(tmp_path, f"method.rank={i + 1}", f"train.lr={lr}", last=i / 20 + lr)
    found = figures(load_records(tmp_path), picture)
    name = "epochs_cola" if picture is scores.over_epochs else "over_lr_cola"
    for axes in found[name].axes:
        looks = {(line.get_color(), line.get_marker()) for line in axes.lines}
        assert len(axes.lines) == len(looks) == style.MAX_LINES == len(axes.texts)
        heights = sorted(text.xyann[1] for text in axes.texts)
        assert (np.diff(heights) > 0).all() and axes.get_legend() is None
        best = max(axes.texts, key=lambda text: text.xy[1]).get_text()
        assert axes is not found[name].axes[-1] or best.startswith("lora r=11")
    assert "the best 8 of" in found[name].get_suptitle()


def test_bars_stand_before_the_grid_and_an_unknown_cost_is_a_dash(tmp_path):
    made_up(tmp_path, train_seconds=20.0)
    made_up(tmp_path, "method=full", train_seconds=None)
    left, right = figures(load_records(tmp_path), costs)["costs_cola"].axes
    for axes in (left, right):
        assert axes.get_axisbelow() and axes.xaxis.get_zorder() < axes.patches[0].get_zorder()
    assert sorted(text.get_text() for text in left.texts) == ["20", "–"]


def test_costs_leave_out_what_was_trained_in_groups_and_say_so(tmp_path):
    made_up(tmp_path, train_seconds=20.0)
    made_up(tmp_path, "method=full", train_seconds=30.0)
    group = {"size": 4, "train_seconds": 9.0, "eval_seconds": 1.0, "peak_memory_bytes": 1}
    made_up(tmp_path, "method=bitfit", group=group, peak_memory_bytes=None)
    picture = figures(load_records(tmp_path), costs)["costs_cola"]
    names = [label.get_text() for label in picture.axes[0].get_yticklabels()]
    assert names == ["full", "lora r=8"]
    assert picture.get_suptitle().endswith("not shown: 1 system trained in groups")


def test_wins_count_common_seeds_and_a_tie_is_half():
    shares, texts = grids._wins([{0: 2.0, 1: 2.0, 2: 1.0}, {0: 1.0, 1: 2.0, 3: 9.0}, {2: 1.0}])
    assert texts[0, 1] == "1.5/2" and shares[1, 0] == 0.25
    assert np.isnan(shares[0, 2]) and texts[0, 2] == "" and np.isnan(np.diag(shares)).all()


def test_a_bar_joins_the_longest_runs_of_which_every_two_are_the_same():
    same = np.eye(5, dtype=bool)
    for i, j in ((0, 1), (1, 2), (0, 2), (2, 3), (0, 4), (3, 4), (2, 4)):
        same[i, j] = same[j, i] = True
    assert ranks.equal_neighbors(same) == [(0, 2), (2, 4)]
    assert ranks.stacked([(0, 2), (2, 4), (3, 5), (5, 6)]) == [0, 1, 0, 1]
    assert ranks.equal_neighbors(np.eye(3, dtype=bool)) == [] == ranks.stacked([])


def rank_diagram(scores: dict[str, dict[int, float]]) -> plt.Figure:
    """Of systems with the same scores, by seed, on two tasks."""
    rows = [
        {"label": label, "place": place, "first": True, "scores": own}
        for label, own in scores.items()
        for place in ("cola", "rte")
    ]
    with plt.rc_context(style.STYLE):
        ((name, figure),) = ranks.rank_diagram(pd.DataFrame(rows), pd.DataFrame())
        figure.draw_without_rendering()
    assert name == "ranks"
    return figure


def bars_of(figure: plt.Figure) -> list[list[float]]:
    return [line.get_ydata().tolist() for line in figure.axes[1].lines]


def test_mean_ranks_stand_in_order_with_bars_for_what_is_not_told_apart():
    """The p of one direction in all of n blocks is 2/2^n, times three pairs."""
    changing = {seed: 80 + (-1) ** seed for seed in range(5)}
    systems = {"last": dict.fromkeys(range(5), 20.0), "second": dict.fromkeys(range(5), 80.0)}
    figure = rank_diagram({**systems, "best": changing})  # 80.2: not told from the second
    left, _ = figure.axes
    assert [text.get_text() for text in left.get_yticklabels()] == ["best", "second", "last"]
    assert left.lines[0].get_xdata().tolist() == [1.0, 2.0, 3.0]
    assert bars_of(figure) == [[-0.25, 1.25]]
    title = figure.get_suptitle().replace("\n", " ")
    assert "exact sign flips over 10 blocks" in title and "too few" not in title
    few = {label: {0: own[0], 1: own[1]} for label, own in systems.items()}
    figure = rank_diagram(few)
    assert bars_of(figure) == [[-0.25, 1.25]]  # 2/2^4 is more than 0.05
    assert "too few for any significant difference: 4 blocks" in figure.get_suptitle()
    assert bars_of(rank_diagram(systems)) == []


def test_twenty_systems_with_long_names_do_not_overlap():
    rng = np.random.default_rng(0)
    systems = {
        f"peft_method_{i} r=8 a_setting={i}": {seed: i + rng.normal() for seed in range(4)}
        for i in range(21)
    }
    figure = rank_diagram(systems)
    axes, bars = figure.axes
    boxes = [text.get_window_extent() for text in axes.get_yticklabels()]
    assert len(boxes) == ranks.MAX_SYSTEMS and "the best 20 of 21" in figure.get_suptitle()
    assert all(upper.y0 >= lower.y1 for upper, lower in itertools.pairwise(boxes))
    assert min(box.x0 for box in boxes) >= 0
    assert max(box.x1 for box in boxes) <= axes.get_window_extent().x0
    assert axes.get_window_extent().x1 <= bars.get_window_extent().x0
    (title,) = [text for text in figure.texts if text.get_text() == figure.get_suptitle()]
    assert title.get_window_extent().x1 <= figure.bbox.x1
    assert title.get_window_extent().y0 >= axes.get_window_extent().y1


def test_axes_are_logarithmic_where_values_are_spread():
    for values, scale in (
        ([1.0, 4.0, 8.0], "log"),
        ([1e-4, 3e-4, 1e-3], "log"),
        ([0.0, 0.06, 0.5], "linear"),
        ([1.0, 2.0, 3.0], "linear"),
    ):
        _, axes = plt.subplots()
        scores._scale(axes, values)
        assert axes.get_xscale() == scale and list(axes.get_xticks()) == values


def test_the_lines_of_the_axes_end_with_the_data():
    _, axes = plt.subplots()
    axes.plot([2, 5], [10, 70])
    style.end_with_data(axes)
    assert axes.spines["bottom"].get_bounds() == (2, 5)
    assert axes.spines["left"].get_bounds() == (10, 70)


def test_the_pareto_front_holds_what_nothing_beats():
    assert scores._front(np.array([1, 2, 3, 2, 4]), np.array([5, 7, 6, 4, 7])) == [0, 1]


def test_names_moved_apart_keep_their_order_and_stay_inside():
    rng = random.Random(0)
    for _ in range(200):
        values = sorted(rng.uniform(0, 10) for _ in range(rng.randint(1, 9)))
        found = style._spread(values, 1.0, 0.0, 10.0)
        assert all(b - a >= 1 - 1e-9 for a, b in itertools.pairwise(found))
        assert found[0] >= -1e-9 and found[-1] <= 10 + 1e-9
    assert style._spread([3.0, 6.0], 1.0, 0.0, 10.0) == [3.0, 6.0]


def test_short_names_give_a_one_line_error_and_no_two_alike():
    long = ["a" * 200, "a" * 199 + "b", "a" * 100 + "c" + "a" * 99, "x\ny", "x y", "\x00"]
    found = style.short_names(long)
    assert len(set(found.values())) == len(long)
    assert all(len(name) < 32 and name.isprintable() for name in found.values())
    flags = ["lora r=8 rank_stabilized=false alpha=16", "lora r=8 rank_stabilized=true alpha=16"]
    assert style.short_names(flags)[flags[0]] == "lora r=8 alpha=16"


HOSTILE = (
    "$x$", "$", "a_b^c", "\\frac{", "two\nlines", "<!--<script>", "</script>", "&amp;", "é漢字🙂",
    "w" * 200, "\x00\x1b[31m", "%s {}", "../../up", "=1+1", " ", "a|b",
)  # fmt: skip


def random_runs(folder, rng: random.Random):
    """A few records with random settings, hostile names and missing values."""
    methods = rng.sample([*HOSTILE, "lora", "full", "bitfit"], rng.randint(1, 4))
    tasks = rng.sample(["cola", "rte", *HOSTILE], rng.randint(1, 2))
    for _ in range(rng.randint(1, 12)):
        identity = composed().identity(data="d", model="m")
        system = identity.system | {
            "method.name": rng.choice(methods),
            "method.rank": rng.choice([None, 1, 8]),
            "method.alpha": rng.choice([None, 4, 8.5]),
            "train.lr": rng.choice([1e-3, 2e-3, 1e-2]),
        }
        where = identity.where | {"task.name": rng.choice(tasks)}
        changed = Identity(where, system, rng.randint(0, 3))
        more = {
            "last": rng.random(), "best": rng.random(),
            "status": rng.choice(["ok", "ok", "ok", "failed"]),
            "adapter_bytes": rng.choice([None, 0, 1 << 20]),
            "train_seconds": rng.choice([None, 0.0, 3.5]),
            "peak_memory_bytes": rng.choice([None, 1 << 30]),
            "parameters": rng.choice([None, {}, {"trained": 5}, {"trained": 9, "head": 9}]),
            "error": rng.choice(HOSTILE), "command": rng.choice(HOSTILE),
        }  # fmt: skip
        made_of(
            folder / "".join(rng.choices(string.ascii_letters, k=12)), composed(), changed, **more
        )


@pytest.mark.parametrize("seed", mostly_slow(seeds_of_fuzz(8), [0]))
def test_random_records_make_pictures_or_one_line(seed, tmp_path, capsys, monkeypatch):
    monkeypatch.delitem(FORMATS, "pdf")  # its fonts take most of the time
    random_runs(tmp_path / "runs", random.Random(seed))
    try:
        main(["plots", "--runs", str(tmp_path / "runs"), "--out", str(tmp_path / "out")])
    except SystemExit as stopped:
        message = str(stopped.code)
        assert message.startswith("error: ") and "\n" not in message
        return
    for path in capsys.readouterr().out.splitlines():
        assert path.startswith(f"{tmp_path}/out/pictures/"), path  # no name leads elsewhere
    for path in (tmp_path / "out").rglob("*.svg"):
        ET.parse(path)


def test_runs_without_a_rank_have_pictures(tmp_path):
    for seed in (0, 1):
        made_up(tmp_path, "method=full", f"seed={seed}")
    assert set(figures(load_records(tmp_path))) == {"epochs_cola", "costs_cola"}
