"""``python -m lora_bench.report``: print the table of all runs and write it as Markdown and CSV."""

import argparse
import sys
from pathlib import Path

from . import PROTOCOLS, load_records
from .tables import failures, fold_constants, score_table, to_markdown

MEANING = {
    "last": "Score after the last epoch",
    "best": "Score of each run's best epoch, chosen on the data it is reported on",
}
READING = (
    "{title}: percent, mean ± standard deviation over n seeds. `chance` is the best constant guess; `ceiling`, where "
    "known, is what a perfect model gets against the noisy labels; `adapter` and `trained` count parameters, `trained` "
    "those of the head too; `file` is what is saved, `train` the median time, `peak` the median memory of the process."
)


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
        table = score_table(runs, protocol)
        rest, constants = fold_constants(table) if len(table) else (table, "")
        text = f"{READING.format(title=MEANING[protocol])} {constants}\n\n{to_markdown(rest)}\n"
        if len(failed):
            text += f"\nFailed runs:\n\n{to_markdown(failed)}\n"
        (out / f"table_{protocol}.md").write_text(text)
        table.to_csv(out / f"table_{protocol}.csv", index=False)
        if protocol == args.protocol:
            print(text)
    print(f"Written: {out}/table_last.md, table_best.md and the same as .csv; records: {args.runs}/runs/")


if __name__ == "__main__":
    main()
