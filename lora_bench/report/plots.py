"""Pictures of cells and runs. Solid light background, so that they read on light and dark pages; Okabe and Ito's colours, which
colour-blind readers tell apart, and a marker of its own for each line."""

from collections.abc import Callable, Iterator
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from .cells import PLACE, SYSTEM, labels, median_costs, system_name
from .tables import MIB, common, is_grid

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999999")
MARKERS = "osD^vP*X"
STYLE = {
    "figure.facecolor": "#fbfbf8", "axes.facecolor": "#fbfbf8", "axes.edgecolor": "#444444", "text.color": "#222222",
    "axes.labelcolor": "#222222", "xtick.color": "#222222", "ytick.color": "#222222", "axes.grid": True,
    "grid.color": "#dddddd", "axes.spines.top": False, "axes.spines.right": False, "font.size": 10,
    "svg.hashsalt": "lora-bench", "svg.fonttype": "none", "savefig.bbox": "tight", "legend.frameon": False,
}  # fmt: skip


def draw(cells: pd.DataFrame, runs: pd.DataFrame, folder: Path) -> list[Path]:
    """Write every picture that these runs fill as SVG; returns the files. What lay there before is replaced."""
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("*.svg"):
        old.unlink()
    scored = cells[cells["first"] & (cells.n > 0)]
    scored = scored.assign(label=labels(scored))
    written = []
    with plt.rc_context(STYLE):
        for name, figure in (made for picture in PICTURES for made in picture(scored, runs)):
            written.append(folder / f"{name}.svg")
            figure.savefig(written[-1], metadata={"Date": None})
            plt.close(figure)
    return written


def score_by_rank(scored: pd.DataFrame, runs: pd.DataFrame) -> Iterator[tuple[str, Figure]]:
    """Score against rank with the bootstrap interval, one line for each method and policy, one picture for each task."""
    ranked = scored[scored["rank"].notna()]
    for stem, place in _by_place(ranked):
        lines = {
            name: line.sort_values("rank")
            for name, line in _lines(place)
            if line["rank"].nunique() > 1
        }
        if not lines:
            continue
        figure, axes = _axes("score by rank", place, "rank")
        axes.set_xscale("log", base=2)
        for (name, line), style in zip(lines.items(), _styles(), strict=False):
            axes.plot(line["rank"].astype(float), line["mean"], label=name, **style)
            if line.low.notna().all():
                axes.fill_between(
                    line["rank"].astype(float),
                    line.low.astype(float),
                    line.high.astype(float),
                    color=style["color"],
                    alpha=0.2,
                )
        ticks = sorted(set(place["rank"].astype(int)))
        axes.set_xticks(ticks, [str(t) for t in ticks])
        axes.legend()
        yield f"rank_{stem}", figure


def pareto(scored: pd.DataFrame, runs: pd.DataFrame) -> Iterator[tuple[str, Figure]]:
    """Score against trained parameters of the encoder and against the saved file, with the Pareto front."""
    sizes = median_costs(runs, ["trained_parameters", "adapter_bytes"])
    merged = scored.merge(sizes.reset_index(), on=[*PLACE, *SYSTEM])
    for stem, place in _by_place(merged):
        for column, unit, title, name in (
            ("trained_parameters", 1, "trained parameters, head included", "parameters"),
            ("adapter_bytes", MIB, "size of the saved adapter, MiB", "size"),
        ):
            if place.label.nunique() < 2:
                continue
            figure, axes = _axes(f"score by {title.split(',')[0]}", place, title)
            axes.set_xscale("log")
            x, y = place[column] / unit, place["mean"]
            for (_, cell), style in zip(place.iterrows(), _styles(), strict=False):
                low, high = (
                    (0, 0)
                    if pd.isna(cell.low)
                    else (cell["mean"] - cell.low, cell.high - cell["mean"])
                )
                style = style | {"linestyle": "none"}
                axes.errorbar(
                    cell[column] / unit,
                    cell["mean"],
                    yerr=[[low], [high]],
                    label=cell.label,
                    capsize=3,
                    **style,
                )
            front = _front(x.to_numpy(dtype=float), y.to_numpy(dtype=float))
            axes.step(
                x.to_numpy()[front],
                y.to_numpy()[front],
                where="post",
                color="#888888",
                linestyle="--",
                label="Pareto front",
            )
            axes.legend(fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
            yield f"pareto_{name}_{stem}", figure


def over_epochs(scored: pd.DataFrame, runs: pd.DataFrame) -> Iterator[tuple[str, Figure]]:
    """Training loss and score after each epoch, mean over seeds, one picture for each task."""
    done = runs[runs.status == "ok"]
    named = done.merge(scored[[*PLACE, *SYSTEM, "label", "metric"]], on=[*PLACE, *SYSTEM])
    for stem, place in _by_place(named):
        if place.epochs.map(len).max() < 2:
            continue
        figure, (left, right) = plt.subplots(
            1, 2, figsize=(10, 4), sharex=True, layout="constrained"
        )
        metric = place.metric.iloc[0]
        for (name, group), style in zip(
            place.groupby("label", sort=False), _styles(), strict=False
        ):
            losses = _mean_by_epoch(group, lambda e: e["loss"])
            scores = _mean_by_epoch(group, lambda e, m=metric: 100 * e["scores"][m])
            left.plot(losses.index, losses, label=name, **style)
            right.plot(scores.index, scores, label=name, **style)
        left.set(
            xlabel="epoch",
            ylabel="training loss (mean over examples)",
            title=f"{place.task.iloc[0]}: loss",
        )
        right.set(xlabel="epoch", ylabel=f"{metric}, %", title=f"{place.task.iloc[0]}: score")
        for axes in (left, right):
            axes.xaxis.get_major_locator().set_params(integer=True)
        figure.legend(
            *left.get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize=8
        )
        yield f"epochs_{stem}", figure


def heat_map(scored: pd.DataFrame, runs: pd.DataFrame) -> Iterator[tuple[str, Figure]]:
    """Rank by alpha, where both were swept."""
    grid = scored[scored["rank"].notna() & scored.alpha.notna()]
    for stem, place in _by_place(grid):
        for (method, policy), group in place.groupby(["method", "policy"]):
            if not is_grid(group):
                continue
            table = group.pivot_table(index="alpha", columns="rank", values="mean").sort_index(
                ascending=False
            )
            name = system_name(method, None, policy)
            figure, axes = plt.subplots(
                figsize=(1.2 + 0.8 * len(table.columns), 1.2 + 0.6 * len(table)),
                layout="constrained",
            )
            values = table.to_numpy(dtype=float)
            image = axes.imshow(values, cmap="cividis", aspect="auto")
            axes.grid(False)
            axes.set_xticks(range(len(table.columns)), [str(r) for r in table.columns])
            axes.set_yticks(range(len(table)), [f"{a:g}" for a in table.index])
            axes.set(
                xlabel="rank",
                ylabel="alpha",
                title=f"{place.task.iloc[0]}, {name}: {place.metric.iloc[0]}, %",
            )
            middle = np.nanmean(values)
            for (i, j), value in np.ndenumerate(values):
                axes.text(
                    j,
                    i,
                    "–" if np.isnan(value) else f"{value:.1f}",
                    ha="center",
                    va="center",
                    color="white" if value < middle else "black",
                )
            figure.colorbar(image)
            yield f"heat_{stem}_{method}{'_policy' if policy else ''}", figure


def costs(scored: pd.DataFrame, runs: pd.DataFrame) -> Iterator[tuple[str, Figure]]:
    """Training time and peak memory of each system, median over seeds."""
    medians = median_costs(runs, ["train_seconds", "peak_memory_bytes"])
    merged = scored.merge(medians.reset_index(), on=[*PLACE, *SYSTEM])
    for stem, place in _by_place(merged):
        place = place.sort_values("train_seconds", ascending=False)
        figure, axes = plt.subplots(
            1, 2, figsize=(10, 1 + 0.3 * len(place)), sharey=True, layout="constrained"
        )
        axes[0].barh(place.label, place.train_seconds, color=COLOURS[0])
        axes[1].barh(place.label, place.peak_memory_bytes.astype(float) / MIB, color=COLOURS[4])
        axes[0].set(
            xlabel="training time, s", title=f"{place.task.iloc[0]} ({common(place)}): time"
        )
        axes[1].set(xlabel="peak memory of the process, MiB", title="memory")
        yield f"costs_{stem}", figure


PICTURES: tuple[Callable, ...] = (score_by_rank, pareto, over_epochs, heat_map, costs)


def _by_place(frame: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """Yield (name, rows) for each task on one model, source and training size; the name holds what tells two apart."""
    if len(frame):
        for values, place in frame.groupby(PLACE, dropna=False):
            several = frame[frame.task == values[0]][PLACE].drop_duplicates().shape[0] > 1
            yield (
                values[0] + (f"_{values[1]}_{values[2]}_{values[3]:.0f}" if several else ""),
                place,
            )


def _lines(place: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    for (method, policy), line in place.groupby(["method", "policy"]):
        yield system_name(method, None, policy), line


def _styles() -> Iterator[dict]:
    """Colour, marker and line style: 24 that differ, in colour and marker too."""
    for turn, line in enumerate(("-", "--", ":")):
        for colour, marker in zip(COLOURS, MARKERS[turn:] + MARKERS[:turn], strict=True):
            yield {"color": colour, "marker": marker, "linestyle": line}


def _axes(title: str, place: pd.DataFrame, x: str):
    figure, axes = plt.subplots(figsize=(7, 4.5), layout="constrained")
    axes.set(
        xlabel=x,
        ylabel=f"{place.metric.iloc[0]}, % (mean, 95 % bootstrap interval)",
        title=f"{place.task.iloc[0]}: {title} ({common(place)})",
    )
    axes.title.set_fontsize(10)
    return figure, axes


def _front(x: np.ndarray, y: np.ndarray) -> list[int]:
    """Positions of the points that no other one beats in both: smaller (or equal) and better."""
    front, best = [], -np.inf
    for i in np.lexsort((-y, x)):
        if y[i] > best:
            front.append(int(i))
            best = y[i]
    return front


def _mean_by_epoch(group: pd.DataFrame, value: Callable[[dict], float]) -> pd.Series:
    points = [(epoch["epoch"], value(epoch)) for epochs in group.epochs for epoch in epochs]
    return pd.DataFrame(points, columns=["epoch", "value"]).groupby("epoch")["value"].mean()
