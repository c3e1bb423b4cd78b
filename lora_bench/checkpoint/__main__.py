"""``python -m lora_bench.checkpoint``: inspect, convert and merge adapters."""

import argparse
import json
import math
import os
from pathlib import Path

import argcomplete

from ..errors import UserError, counted
from ..files import try_folder
from ..model.source import source_name
from ..presets import task_preset
from ..program import Parser, program, reason_of
from ..spec import ModelSpec
from . import EPOCHS, adapter_of, check_hash
from .facts import WEIGHTS, read_facts

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
# format of the source -> (options that it needs, options that it uses)
OPTIONS = {
    "ours": ((), ("epoch",)),
    "peft": (("task",), ("task", "base")),
    "loralib": (("task", "base", "alpha"), ("task", "base", "alpha")),
    "article": (("task",), ("task", "base")),
}


@program
def main(arguments: list[str] | None = None) -> None:
    """The command line."""
    parser = _parser()
    argcomplete.autocomplete(parser)
    args = parser.parse_args(arguments)
    print({"inspect": _inspect, "merge": _merge, "convert": _convert}[args.command](args))


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
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
    convert = commands.add_parser("convert", help="from or to PEFT, or from loralib or the article")
    for command in (inspect, merge, convert):
        command.add_argument(
            "source",
            type=Path,
            help="folder of a run or an adapter; for loralib and article: the file",
        )
        command.add_argument(
            "--epoch",
            choices=list(EPOCHS),
            help="which adapter of a run: of its last epoch (default) or of its best one",
        )
    for command in (merge, convert):
        command.add_argument(
            "--out", type=Path, required=True, help="folder to write; must not exist"
        )
    convert.add_argument(
        "--from", dest="origin", choices=[*OPTIONS], default="ours", help="default: %(default)s"
    )
    convert.add_argument(
        "--to", choices=("ours", "peft"), default="ours", help="default: %(default)s"
    )
    convert.add_argument(
        "--task",
        help="task of the head, a name under conf/task/ (for all but --from ours)",
    )
    convert.add_argument(
        "--base",
        help="hub id or folder of the base model (for loralib; overrides that of peft and article)",
    )
    convert.add_argument(
        "--alpha", type=float, help="alpha of the scaling alpha / rank; loralib's files lack it"
    )
    return parser


def _inspect(args: argparse.Namespace) -> str:
    from .tensors import finite, read_safetensors

    folder = adapter_of(args.source, args.epoch)
    facts, state = read_facts(folder), read_safetensors(folder / WEIGHTS)
    check_hash(folder, facts["weights_sha256"])
    rows = [
        f"  {name}  {tuple(tensor.shape)}{'' if finite(tensor) else '  NaN or infinite numbers'}"
        for name, tensor in state.items()
    ]
    count = sum(tensor.numel() for tensor in state.values())
    size = f"{counted(len(state), 'parameter')}, {counted(count, 'number')}"
    return "\n".join([json.dumps(facts, indent=1), *rows, size])


def _merge(args: argparse.Namespace) -> str:
    from .export import merge

    _refuse_existing(args.out)
    name = merge(adapter_of(args.source, args.epoch), args.out)
    return f"{args.out}: load it with transformers.{name}.from_pretrained"


def _convert(args: argparse.Namespace) -> str:
    from . import export

    if (args.origin == "ours") == (args.to == "ours"):
        raise UserError(f"--from {args.origin} --to {args.to}: exactly one of them must be ours")
    _refuse_existing(args.out)
    _check_options(args)
    if args.origin == "ours":
        export.export_peft(adapter_of(args.source, args.epoch), args.out)
        return f"{args.out}: load it with peft.PeftModel.from_pretrained"
    left_out = _import(args)
    lines = [f"{args.out}: start a run from it with init_from={args.out}"]
    if left_out:
        lines.append(f"left out, because no output depends on them: {', '.join(left_out)}")
    return "\n".join(lines)


def _import(args: argparse.Namespace) -> list[str]:
    """Import another project's adapter; returns the names of the tensors that were left out."""
    from . import foreign

    task = task_preset(args.task)
    base = None if args.base is None else ModelSpec(name=source_name(args.base), source=args.base)
    if args.origin == "peft":
        return foreign.import_peft(args.source, args.out, task, base)
    if args.origin == "article":
        return foreign.import_article(args.source, args.out, task, base)
    assert base is not None
    return foreign.import_loralib(args.source, args.out, task, base, args.alpha)


def _check_options(args: argparse.Namespace) -> None:
    """Refuse an option that is missing, or that a format of the source does not use.

    Raises:
        UserError: names the option.
    """
    given = {name: getattr(args, name) is not None for name in ("task", "base", "alpha", "epoch")}
    needed, used = OPTIONS[args.origin]
    if missing := [f"--{name}" for name in needed if not given[name]]:
        raise UserError(
            f"--from {args.origin}: needs {' and '.join(missing)}, which the file does not state"
        )
    for name in (name for name in given if given[name] and name not in used):
        raise UserError(
            f"--{name} {getattr(args, name)}: --from {args.origin} does not use it; leave it out"
        )
    if args.alpha is not None and not (args.alpha > 0 and math.isfinite(args.alpha)):
        raise UserError(f"--alpha {args.alpha}: must be a finite number above 0")


def _refuse_existing(out: Path) -> None:
    if os.path.lexists(out):  # also a broken link: no folder can replace it
        raise UserError(f"--out {out}: exists already; choose another folder")
    try:
        try_folder(out)
    except OSError as error:
        raise UserError(f"--out {out}: cannot be written ({reason_of(error)})") from None


if __name__ == "__main__":
    main()
