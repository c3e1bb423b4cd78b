"""``python -m lora_bench.studies.low_rank.tune``: the learning rate of each layer type.

Every layer type has the same budget: the same rates, ranks and seeds. Neither the seeds nor the
images that decide are those of the reported results: a fifth of the training images is held out.
Words are overrides of the defaults below, as in ``optimizer=sgd layer=full``.
"""

import argparse

import pandas as pd
from tqdm import tqdm

from ...errors import UserError
from ...hydra_program import is_of_launcher
from ...overrides import command_of
from ...plans import write_plan
from ...presets import INSTALLED
from ...program import Parser, program
from .compose import CONF, command, plan, without_rank
from .run import Run, execute, prepare
from .settings import FOLDERS, Settings

MODULE = "lora_bench.studies.low_rank.tune"
RATES = {"adam": "3e-4,1e-3,3e-3,1e-2,3e-2", "sgd": "1e-2,3e-2,1e-1,3e-1,1"}
# Not in the command of a run: the kind follows from the layer, and ``command`` adds the rate.
NOT_IN_COMMAND = {*FOLDERS, "kind", "lr"}
DEFAULTS = {
    "layer": ",".join(sorted(path.stem for path in CONF.glob("layer/*.yaml"))),
    "rank": "1,2,4,8,16,32,64",
    "seed": "100,101,102",
    "optimizer": "adam",
    "split": "held_out",
    "out_dir": "outputs/low_rank_tuning",
}


@program
def main(arguments: list[str] | None = None) -> None:
    """Train with every rate; print, and optionally write, the best one of each layer type."""
    parser = Parser(
        prog=f"python -m {MODULE}",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("words", nargs="*", help="overrides, as in optimizer=sgd")
    parser.add_argument(
        "--write", action="store_true", help="make the best rates the presets of the study"
    )
    args = parser.parse_intermixed_args(arguments)
    if args.write and INSTALLED:
        raise UserError("--write: an installed package is not written to; use a clone")
    words = complete(args.words)
    runs = {run.key: run for run in prepare(map(without_rank, plan(words, sweep=True)))}
    scores = measure(list(runs.values()))
    text = command_of(args.words, MODULE)
    out_dir = next(iter(runs.values())).out_dir
    write_plan(out_dir, text, list(runs))
    (optimizer,) = scores.optimizer.unique()
    best = choose(scores)
    shown = describe(scores, best, text)
    (out_dir / f"rates_{optimizer}.md").write_text(f"{shown}\n", encoding="utf-8")
    print(shown)
    for layer, rate in best.items() if args.write else ():
        path = CONF / "learning_rate" / f"{layer}_{optimizer}.yaml"
        path.write_text(preset(text, rate, scores), encoding="utf-8")
        print(path)


def complete(words: list[str]) -> list[str]:
    """The user's words, the rates for their optimizer, and the defaults for the rest.

    Raises:
        UserError: the optimizer is unknown, or there are several: a command tunes for one; or a
            word is for a launcher, which would have no effect.
    """
    for word in filter(is_of_launcher, words):
        raise UserError(f"{word}: the search runs in this process")
    chosen = DEFAULTS | {word.partition("=")[0]: word.partition("=")[2] for word in words}
    if chosen["optimizer"] not in RATES:
        allowed = f"must be one of {', '.join(RATES)}"
        raise UserError(f"optimizer={chosen['optimizer']}: {allowed}")
    chosen.setdefault("lr", RATES[chosen["optimizer"]])
    return [f"{name}={value}" for name, value in chosen.items()]


def measure(runs: list[Run]) -> pd.DataFrame:
    """Execute the runs; one row each with layer, rank (0: full), lr, seed, optimizer, accuracy.

    A run that failed, for example because its loss was not finite, has accuracy 0.
    """
    rows = []
    for run in tqdm(runs, unit="run", leave=False):
        s, default = run.settings, vars(Settings())
        changed = {name: v for name, v in vars(s).items() if v != default[name]}
        words = [f"{name}={v}" for name, v in changed.items() if name not in NOT_IN_COMMAND]
        record = execute(run, command(words, s))
        accuracy = record.last["scores"]["accuracy"] if record.last else 0.0
        rows.append((s.layer, s.rank or 0, s.lr, s.seed, s.optimizer, accuracy))
    return pd.DataFrame(rows, columns=["layer", "rank", "lr", "seed", "optimizer", "accuracy"])


def choose(scores: pd.DataFrame) -> pd.Series:
    """The best rate of each layer type: by the mean accuracy over its ranks and seeds.

    Of equally good rates, the lowest.

    Raises:
        UserError: every run of a layer type failed.
    """
    best = scores.groupby("layer").accuracy.max()
    if lost := list(best.index[best == 0]):
        raise UserError(f"{', '.join(lost)}: every run failed, so there is no rate")
    table = scores.pivot_table(index="layer", columns="lr", values="accuracy")
    return table.sort_index(axis=1).idxmax(axis=1)


def describe(scores: pd.DataFrame, best: pd.Series, text: str) -> str:
    """What was tried, as Markdown: the means that decided, and the means for each rank.

    Args:
        scores: scores of the runs.
        best: rate of each layer type.
        text: the command.
    """
    best = best.map("{:g}".format).rename("best")
    tables = (
        _percent(scores, ["layer"]).join(best),  # what decided
        _percent(scores, ["layer", "rank"]),
    )
    return "\n\n".join([
        f"Accuracy on held-out training images, percent, mean over {_seeds(scores)} (in the "
        "first table also over ranks); a run that diverged counts as 0.",
        f"`{text}`",
        *(t.reset_index().to_markdown(index=False, disable_numparse=True) for t in tables),
    ])  # fmt: skip


def _percent(scores: pd.DataFrame, rows: list[str]) -> pd.DataFrame:
    table = scores.pivot_table(index=rows, columns="lr", values="accuracy").sort_index(axis=1)
    return (100 * table).map("{:.1f}".format).rename(columns="lr={:g}".format)


def preset(text: str, rate: float, scores: pd.DataFrame) -> str:
    """The preset with the rate of one layer type, and the command that found it."""
    tried = ", ".join(f"{r:g}" for r in sorted(scores.lr.unique()))
    return (
        f"# @package _global_\n# Written by `{text}`: the best of {tried} by the accuracy\n"
        f"# on held-out training images, mean over ranks and {_seeds(scores)}.\nlr: {rate!r}\n"
    )


def _seeds(scores: pd.DataFrame) -> str:
    seeds = sorted(scores.seed.unique())
    return f"{'seed' if len(seeds) == 1 else 'seeds'} {', '.join(map(str, seeds))}"


if __name__ == "__main__":
    main()
