"""``python -m lora_bench.studies.low_rank.tune``: the learning rate of each layer type.

Every layer type has the same budget: the same rates, ranks and seeds. Neither the seeds nor the
images that decide are those of the reported results: a fifth of the training images is held out.
Words are overrides of the defaults below, as in ``optimizer=sgd layer=full``.
"""

import argparse
import sys

import pandas as pd
from tqdm import tqdm

from ... import record as records
from ...spec import UserError
from .compose import CONF, command, plan, portable
from .run import Run, execute, prepare

MODULE = "lora_bench.studies.low_rank.tune"
RATES = {"adam": "3e-4,1e-3,3e-3,1e-2,3e-2", "sgd": "1e-2,3e-2,1e-1,3e-1,1"}
DEFAULTS = {
    "layer": ",".join(sorted(path.stem for path in CONF.glob("layer/*.yaml"))),
    "rank": "1,2,4,8,16,32,64",
    "seed": "100,101,102",
    "optimizer": "adam",
    "split": "held_out",
    "out_dir": "outputs/low_rank_tuning",
}


def main(arguments: list[str] | None = None) -> None:
    """Train with every rate, and print, and if asked write, the best of each layer type."""
    parser = argparse.ArgumentParser(
        prog=f"python -m {MODULE}",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("words", nargs="*", help="overrides, as in optimizer=sgd")
    parser.add_argument(
        "--write", action="store_true", help="make the best rates the presets of the study"
    )
    args = parser.parse_args(arguments)
    try:
        words = complete(args.words)
        runs = {run.key: run for run in prepare(plan(words, sweep=True))}
        scores = measure(list(runs.values()))
    except UserError as error:
        sys.exit(f"error: {error}")
    (optimizer,) = scores.optimizer.unique()
    table, best = choose(scores)
    text = f"python -m {MODULE} {' '.join(portable(args.words))}".rstrip()
    print(describe(table, text, scores))
    out_dir = next(iter(runs.values())).out_dir
    records.write_plan(out_dir, text, list(runs))
    (out_dir / f"rates_{optimizer}.md").write_text(describe(table, text, scores) + "\n")
    for layer, rate in best.items() if args.write else ():
        path = CONF / "learning_rate" / f"{layer}_{optimizer}.yaml"
        path.write_text(preset(text, float(rate), table.loc[layer, rate], scores))
        print(path)


def complete(words: list[str]) -> list[str]:
    """The user's words, the rates for their optimizer, and the defaults for the rest.

    Raises:
        UserError: more than one optimizer; one sweep tunes the rates of one.
    """
    chosen = DEFAULTS | {word.partition("=")[0]: word.partition("=")[2] for word in words}
    if chosen["optimizer"] not in RATES:
        allowed = f"must be one of {', '.join(RATES)}"
        raise UserError(f"optimizer={chosen['optimizer']}: {allowed}")
    chosen.setdefault("lr", RATES[chosen["optimizer"]])
    return [f"{name}={value}" for name, value in chosen.items()]


def measure(runs: list[Run]) -> pd.DataFrame:
    """Do the runs: one row with layer, rank, lr, seed, optimizer and accuracy for each.

    A run that failed, as one does whose loss is no longer a number, has the accuracy 0.
    """
    rows = []
    for run in tqdm(runs, unit="run", leave=False):
        s = run.settings
        words = [f"layer={s.layer}", f"rank={s.rank}", f"optimizer={s.optimizer}"]
        words += [f"split={s.split}", f"seed={s.seed}"]
        record = execute(run, command(words, s))
        accuracy = record.last["scores"]["accuracy"] if record.last else 0.0
        rows.append((s.layer, s.rank, s.lr, s.seed, s.optimizer, accuracy))
    return pd.DataFrame(rows, columns=["layer", "rank", "lr", "seed", "optimizer", "accuracy"])


def choose(scores: pd.DataFrame) -> tuple[pd.DataFrame, pd.Series]:
    """Mean accuracy of each layer type (rows) at each rate (columns), and the best rates.

    The mean over seeds and ranks; the lower of two equally good rates is chosen.
    """
    table = scores.pivot_table(index="layer", columns="lr", values="accuracy").sort_index(axis=1)
    return table, table.idxmax(axis=1)


def describe(table: pd.DataFrame, text: str, scores: pd.DataFrame) -> str:
    """The table as Markdown, with the command and how much each layer type was tried."""
    shown = (100 * table).map("{:.1f}".format)
    shown.columns = [f"lr={rate:g}" for rate in table.columns]
    counted = scores.groupby(["layer", "lr"]).size().unstack().max(axis=1)
    shown["runs at each rate"] = counted
    rows = shown.reset_index().to_markdown(index=False)
    heading = "Accuracy on held-out training images, percent, mean over ranks and seeds; a run that"
    return f"{heading} diverged counts as 0.\n\n`{text}`\n\n{rows}"


def preset(text: str, rate: float, accuracy: float, scores: pd.DataFrame) -> str:
    """The file of one tuned rate."""
    tried = ", ".join(f"{r:g}" for r in sorted(scores.lr.unique()))
    seeds = ", ".join(map(str, sorted(scores.seed.unique())))
    return (
        f"# @package _global_\n# Written by `{text}`: the best of {tried},\n"
        f"# with {100 * accuracy:.1f} % on held-out training images, mean over ranks and the "
        f"seeds {seeds}.\nlr: {rate!r}\n"
    )


if __name__ == "__main__":
    main()
