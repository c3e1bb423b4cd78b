"""``python -m lora_bench.checkpoint``: inspect, convert and merge adapters."""

import argparse
import json
import sys
from pathlib import Path

from ..presets import task_preset
from ..spec import ModelSpec, UserError
from . import WEIGHTS, adapter_of, read_facts, read_weights

EXAMPLES = """\
examples (the source is a run's folder, <out_dir>/runs/<task>/<key>, or the adapter/ in it):
  python -m lora_bench.checkpoint inspect outputs/runs/cola/<key>
  python -m lora_bench.checkpoint merge outputs/runs/cola/<key> --out merged
  python -m lora_bench.checkpoint convert outputs/runs/cola/<key> --to peft --out for_peft
  python -m lora_bench.checkpoint convert their_peft_folder --from peft --task cola --out mine
  python -m lora_bench.checkpoint convert pytorch_model_lora.bin --from loralib --task cola \\
      --base FacebookAI/roberta-base --alpha 16 --out mine
  python -m lora_bench.checkpoint convert article.pth --from article --task cola --out mine
"""
FORMATS = ("ours", "peft", "loralib", "article")


def main(arguments: list[str] | None = None) -> None:
    """The command line."""
    args = _parser().parse_args(arguments)
    try:
        print({"inspect": _inspect, "merge": _merge, "convert": _convert}[args.command](args))
    except UserError as error:
        sys.exit(f"error: {error}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m lora_bench.checkpoint",
        description="Inspect adapters, convert them, merge them into a plain transformers model.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True)
    inspect = commands.add_parser(
        "inspect", help="print what an adapter belongs to and every parameter in it"
    )
    merge = commands.add_parser(
        "merge", help="write a folder that stock transformers loads without this project"
    )
    convert = commands.add_parser(
        "convert", help="between our format and PEFT's, from loralib's and the article's"
    )
    for command in (inspect, merge, convert):
        command.add_argument(
            "source",
            type=Path,
            help="folder of a run or an adapter; for loralib and article: the file",
        )
    for command in (merge, convert):
        command.add_argument(
            "--out", type=Path, required=True, help="folder to write; must not exist"
        )
    convert.add_argument(
        "--from", dest="origin", choices=FORMATS, default="ours", help="default: %(default)s"
    )
    convert.add_argument("--to", choices=FORMATS[:2], default="ours", help="default: %(default)s")
    convert.add_argument(
        "--task",
        help="task of the head, a name under conf/task/ (for all but --from ours)",
    )
    convert.add_argument(
        "--base",
        help="hub id or folder of the base model (for loralib; overrides the one of peft)",
    )
    convert.add_argument(
        "--alpha", type=float, help="of LoRA's scaling alpha / rank; loralib's files lack it"
    )
    return parser


def _inspect(args: argparse.Namespace) -> str:
    folder = adapter_of(args.source)
    facts, state = read_facts(folder), read_weights(folder / WEIGHTS)
    rows = [f"  {name}  {tuple(tensor.shape)}" for name, tensor in state.items()]
    count = sum(tensor.numel() for tensor in state.values())
    return "\n".join(
        [json.dumps(facts, indent=1), *rows, f"{len(state)} parameters, {count:,} numbers"]
    )


def _merge(args: argparse.Namespace) -> str:
    from .export import merge

    _refuse_existing(args.out)
    name = merge(adapter_of(args.source), args.out)
    return f"{args.out}: load it with transformers.{name}.from_pretrained"


def _convert(args: argparse.Namespace) -> str:
    from . import export, foreign

    if (args.origin == "ours") == (args.to == "ours"):
        raise UserError(f"--from {args.origin} --to {args.to}: exactly one of them must be ours")
    _refuse_existing(args.out)
    if args.origin == "ours":
        export.export_peft(adapter_of(args.source), args.out)
        return f"{args.out}: load it with peft.PeftModel.from_pretrained"
    needed = {"--task": args.task} | (
        {"--base": args.base, "--alpha": args.alpha} if args.origin == "loralib" else {}
    )
    if missing := [name for name, value in needed.items() if value is None]:
        raise UserError(
            f"--from {args.origin}: needs {' and '.join(missing)}, which the file does not state"
        )
    task = task_preset(args.task)
    base = None if args.base is None else ModelSpec(name=Path(args.base).name, source=args.base)
    if args.origin == "peft":
        foreign.import_peft(args.source, args.out, task, base)
    elif args.origin == "loralib":
        assert base is not None
        foreign.import_loralib(args.source, args.out, task, base, args.alpha)
    else:
        foreign.import_article(args.source, args.out, task)
    return f"{args.out}: start a run from it with init_from={args.out}"


def _refuse_existing(out: Path) -> None:
    if out.exists():
        raise UserError(f"--out {out}: exists already; choose another folder")


if __name__ == "__main__":
    main()
