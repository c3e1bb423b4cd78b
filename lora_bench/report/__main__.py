"""``python -m lora_bench.report``: print the table of all runs and write it as Markdown and CSV."""

import argparse
import sys
from pathlib import Path

from . import PROTOCOLS, load_records
from .tables import failures, fold_constants, method_table, score_table, to_markdown

MEANING = {
    "last": "Score after the last epoch",
    "best": "Score of each run's best epoch, chosen on the data it is reported on",
}
METHODS = (
    "Percent of the first metric, mean ± standard deviation over n seeds. Known for generated data: `bag_of_words`, a "
    "linear model on word counts, and `ceiling`, a perfect model against the noisy labels; `chance` is a constant guess."
)
RUNS = (
    "Every metric in percent, and the cost. `adapter` and `trained` count parameters (`trained`: head included), `file` "
    "is what is saved; `train`, `tokens/s` (real tokens of training) and `peak` (the process's memory) are medians."
)
LAYOUTS = (("methods", method_table, METHODS), ("runs", score_table, RUNS))


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m lora_bench.report", description=__doc__)
    parser.add_argument("--runs", type=Path, default=Path("outputs"), help="folder with runs/ (default: %(default)s)")
    parser.add_argument("--out", type=Path, help="folder for the tables (default: that of --runs)")
    parser.add_argument("--protocol", choices=PROTOCOLS, default="last", help="table to print (default: %(default)s)")
    args = parser.parse_args(arguments)
    runs = load_records(args.runs)
    if runs.empty:
        sys.exit(f"error: --runs {args.runs}: no runs there yet; python -m lora_bench makes one")
    out = args.out or args.runs
    out.mkdir(parents=True, exist_ok=True)
    failed = failures(runs)
    for protocol in PROTOCOLS:
        text = ""
        for name, build, reading in LAYOUTS:
            table = build(runs, protocol)
            table.to_csv(out / f"{name}_{protocol}.csv", index=False)
            rest, constants = fold_constants(table)
            text += f"{MEANING[protocol]}. {reading} {constants}\n\n{to_markdown(rest)}\n\n"
        if len(failed):
            text += f"Failed runs:\n\n{to_markdown(failed)}\n"
        (out / f"table_{protocol}.md").write_text(text)
        if protocol == args.protocol:
            print(text)
    print(f"Written: {out}/table_last.md and table_best.md, each table also as .csv; records: {args.runs}/runs/")


if __name__ == "__main__":
    main()
