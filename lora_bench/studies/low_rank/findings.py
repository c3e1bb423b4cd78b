"""``python -m lora_bench.studies.low_rank.findings``: answers to the questions from finished runs.

Reads the records below ``--runs`` and writes ``findings.md`` (scores, costs, and the tests of each
expected observation), ``curves.svg`` (accuracy over epochs) and ``ranks.svg`` (accuracy over
ranks).
"""

import argparse
import sys
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import stats

from ...errors import UserError, counted
from ...program import Parser, program
from ...report.power import SIGNIFICANCE
from ...report.runs import check_complete, read_runs
from ...report.statistics import EXACT_SEEDS, holm, sign_flip
from .settings import STUDY

MODULE = "lora_bench.studies.low_rank.findings"
MEASURES = {
    "initial loss": "training loss before training",
    "initial": "accuracy before training",
    "first": "accuracy after epoch 1",
    "mean": "mean accuracy over the epochs: high where a run converges early",
    "last": "accuracy after the last epoch",
}
DECIMALS = {name: 3 if name == "initial loss" else 1 for name in MEASURES}
# question -> what is compared: a layer type, its rival, a measure
QUESTIONS = {
    "Does the default initialization start lower, and converge later, than full rank?": (
        ("autoencoder", "full", "initial loss"),
        ("autoencoder", "full", "initial"),
        ("autoencoder", "full", "first"),
        ("autoencoder", "full", "mean"),
    ),
    "Does the rank-aware initialization start near full rank?": (
        ("low_rank", "full", "initial loss"),
        ("low_rank", "full", "initial"),
        ("low_rank", "full", "first"),
    ),
    "Does it converge faster than the default one?": (
        ("low_rank", "autoencoder", "first"),
        ("low_rank", "autoencoder", "mean"),
    ),
    "Does too small a rank cost accuracy?": (
        ("low_rank", "full", "last"),
        ("autoencoder", "full", "last"),
    ),
    "What does the initialization alone contribute, without the second bias of an autoencoder?": (
        ("low_rank", "low_rank_default", "mean"),
        ("low_rank", "low_rank_default", "last"),
    ),
    "Is a faster A better (LoRA+)?": (
        ("low_rank_plus", "low_rank", "mean"),
        ("low_rank_plus", "low_rank", "last"),
    ),
    "Is a spectral initialization better?": (
        ("low_rank_spectral", "low_rank", "mean"),
        ("low_rank_spectral", "low_rank", "last"),
    ),
}


@program
def main(arguments: list[str] | None = None) -> None:
    """Write the findings of one folder of runs."""
    parser = Parser(
        prog=f"python -m {MODULE}",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--runs", type=Path, default=Path("outputs/low_rank"), help="default: %(default)s"
    )
    parser.add_argument("--out", type=Path, help="folder to write to (default: that of --runs)")
    args = parser.parse_args(arguments)
    everything, problems = read_runs(args.runs)
    runs = measured(everything, args.runs)
    out = args.out or args.runs
    out.mkdir(parents=True, exist_ok=True)
    text = describe(runs, failures(everything))
    (out / "findings.md").write_text(f"{text}\n", encoding="utf-8")
    print(text)
    from .pictures import draw

    for path in draw(runs, out):
        print(f"written: {path}", file=sys.stderr)
    check_complete(problems)


def measured(runs: pd.DataFrame, root: Path) -> pd.DataFrame:
    """The finished runs of the study with a column for each of MEASURES; scores are in percent.

    Args:
        runs: runs from ``load_records``.
        root: their folder, for messages.

    Raises:
        UserError: there are none, or they cannot be compared: different datasets or recipes, or
            several systems with one layer type and rank.
    """
    done = runs[(runs.status == "ok") & (runs.get("study") == STUDY)] if len(runs) else runs
    if done.empty:
        raise UserError(f"--runs {root}: no finished runs of this study there")
    if done.where_id.nunique() > 1:
        raise UserError(f"--runs {root}: has runs on different data; keep one --runs folder each")
    for name in ("train.optimizer", "train.epochs", "train.batch_size"):
        if done[name].nunique() > 1:
            found = ", ".join(map(str, sorted(set(done[name]))))
            raise UserError(f"--runs {root}: has several values of {name} ({found}); keep one")
    rank = done["rank"].fillna(0)  # full rank has none, and pandas does not group NaN
    systems = done.groupby([done.method, rank]).system_id.nunique()
    if (systems > 1).any():
        layer, at = systems.idxmax()
        raise UserError(
            f"--runs {root}: has several systems of layer={layer} rank={at:.0f}; "
            f"python -m lora_bench.report trace method={layer} --runs {root} lists them"
        )
    rows = [_measures(epochs) for epochs in done.epochs]
    return done.assign(rank=rank.astype(int), **pd.DataFrame(rows, index=done.index))


def _measures(epochs: list[dict]) -> dict[str, float]:
    accuracy = [100 * epoch["scores"]["accuracy"] for epoch in epochs]
    values = (epochs[0]["loss"], accuracy[0], accuracy[1], np.mean(accuracy[1:]), accuracy[-1])
    return dict(zip(MEASURES, map(float, values), strict=True))


def failures(runs: pd.DataFrame) -> str:
    """One line: how many runs of each layer type and rank failed and are not in the means.

    Args:
        runs: runs from ``load_records``.
    """
    ours = runs[runs.study == STUDY]
    failed = (ours.status != "ok").groupby([ours.method, ours["rank"].fillna(0)])
    lost = [
        f"{layer} at rank {rank:.0f}: {found.sum()} of {len(found)}"
        for (layer, rank), found in failed
        if found.any()
    ]
    return f"Failed runs (not included in the means): {'; '.join(lost)}." if lost else ""


def describe(runs: pd.DataFrame, failed: str = "") -> str:
    """Everything that the runs say, as Markdown.

    Args:
        runs: runs from ``measured``.
        failed: line from ``failures``.
    """
    seeds = runs.groupby(["method", "rank"]).seed.nunique()
    fewest = "" if seeds.nunique() == 1 else f"{seeds.min()} to "
    kind = "exact" if seeds.max() <= EXACT_SEEDS else "sampled"
    one = runs.iloc[0]
    explained = "; ".join(f"`{name}`: {meaning}" for name, meaning in MEASURES.items())
    parts = [
        "# Low-rank layers from the start",
        f"{one.task}, {counted(int(one.train_rows), 'training image')}, "
        f"{counted(int(one['train.epochs']), 'epoch')} of {one['train.optimizer']}, "
        f"{fewest}{counted(int(seeds.max()), 'seed')}. Percent, mean ± standard deviation over "
        f"seeds. {explained}. Seconds are medians.",
        *([failed] if failed else []),
        _scores(runs).to_markdown(index=False, disable_numparse=True),
        "# Tests",
        "Mean difference (first minus second) over common seeds with its 95 % interval (paired t), "
        f"and the p-value of the sign-flip permutation test ({kind}, two-sided), with Holm's "
        "correction over the ranks of a comparison. n seeds allow no p below 2 / 2^n. A difference "
        f"counts as significant if p ≤ {SIGNIFICANCE}.",
    ]
    for question, comparisons in QUESTIONS.items():
        tables = [_tests(runs, *comparison) for comparison in comparisons]
        found = [table for table in tables if len(table)]
        if found:
            shown = pd.concat(found).to_markdown(index=False, disable_numparse=True)
            parts += [f"## {question}", shown]
    return "\n\n".join(parts)


def _scores(runs: pd.DataFrame) -> pd.DataFrame:
    rows = []
    for (layer, rank), group in runs.groupby(["method", "rank"]):
        rows.append({
            "layer": layer,
            "rank": str(rank or "–"),
            "lr": f"{group['train.lr'].iloc[0]:g}",
            **{name: _spread(group[name], DECIMALS[name]) for name in MEASURES},
            "parameters": f"{group.trained_parameters.iloc[0]:,.0f}",
            "seconds": f"{group.train_seconds.median():.1f}",
        })  # fmt: skip
    return pd.DataFrame(rows)


def _spread(values: pd.Series, digits: int) -> str:
    spread = f" ± {values.std():.{digits}f}" if len(values) > 1 else ""
    return f"{values.mean():.{digits}f}{spread}"


def _tests(runs: pd.DataFrame, layer: str, rival: str, measure: str) -> pd.DataFrame:
    """One layer type against another on one measure, one row for each rank of the first."""
    ours = runs[runs.method == layer].pivot(index="rank", columns="seed", values=measure)
    theirs = runs[runs.method == rival].pivot(index="rank", columns="seed", values=measure)
    rows = []
    for rank, scores in ours.iterrows():
        at = 0 if rival == "full" else rank
        if at not in theirs.index:
            continue
        difference = (scores - theirs.loc[at]).dropna()
        if len(difference) > 1:
            rows.append((rank, difference))
    corrected = holm([sign_flip(difference.to_numpy()[None])[0] for _, difference in rows])
    return pd.DataFrame([
        {
            "first": layer, "second": rival, "measure": measure, "rank": str(rank),
            **_difference(difference, DECIMALS[measure]), "n": str(len(difference)),
            "p (Holm)": f"{p:.3f}", "result": _result(difference, p),
        }
        for (rank, difference), p in zip(rows, corrected, strict=True)
    ])  # fmt: skip


def _difference(values: pd.Series, decimals: int) -> dict[str, str]:
    mean, half = values.mean(), stats.sem(values) * stats.t.ppf(0.975, len(values) - 1)
    low, high = (f"{bound:+.{decimals}f}" for bound in (mean - half, mean + half))
    return {"difference": f"{mean:+z.{decimals}f}", "95 % interval": f"{low} to {high}"}


def _result(difference: pd.Series, p: float) -> str:
    if p > SIGNIFICANCE:
        return "–"
    return "higher" if difference.mean() > 0 else "lower"


if __name__ == "__main__":
    main()
