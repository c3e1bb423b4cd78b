"""Command line: Hydra -> Spec -> run. ``python -m lora_bench --help`` shows what there is."""

import dataclasses
import difflib
import sys
from pathlib import Path

import hydra
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra._internal.utils import get_args_parser
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from . import record as records
from .presets import CONF
from .record import Record
from .spec import PLACES, Spec, SpecError, UserError
from .sweep.plan import Sweep, expand
from .training.run import announce, folder_of, run

ConfigStore.instance().store("schema", Spec)


def compose(overrides: list[str]) -> Spec:
    """The validated Spec of one run. Raises: UserError: one line that names the setting and what is allowed."""
    try:
        with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
            spec = Spec.from_config(hydra.compose("config", overrides))
        return spec.validate()
    except SpecError as error:
        given = any(o.lstrip("+~").split("=")[0] == error.path for o in overrides)
        raise UserError(
            f"{error} (set by {'the command line' if given else 'a preset or default'})"
        ) from None
    except MissingMandatoryValue as error:
        name = error.full_key or str(error).splitlines()[0].rpartition(" ")[2]
        raise UserError(
            f"{name}: the presets chosen leave it open; set it on the command line"
        ) from None
    except (HydraException, OmegaConfBaseException) as error:
        raise UserError(_unknown_setting(overrides) or _one_line(error)) from None


def _unknown_setting(overrides: list[str]) -> str | None:
    """What to say of the first override that names no field of Spec; None where all do."""
    for override in overrides:
        path = override.lstrip("+~").split("=")[0]
        if override.startswith("method.args."):
            known = compose([other for other in overrides if other != override]).method.args
            if path.rpartition(".")[2] not in known:
                return f"{override}: no such setting; method.args has {', '.join(known) or 'none for this method'}"
        node = Spec
        for name in path.split("."):
            if not dataclasses.is_dataclass(node):
                break
            fields = {f.name: f.type for f in dataclasses.fields(node)}
            if name not in fields and "." in path:
                near = difflib.get_close_matches(name, fields, 1)
                hint = f"did you mean {path.removesuffix(name)}{near[0]}? " if near else ""
                return f"{override}: no such setting; {hint}{path.rpartition('.')[0]} has {', '.join(fields)}"
            node = fields.get(name)
    return None


def _one_line(error: Exception) -> str:
    """Hydra's own message without its search path and type names."""
    text = " ".join(f"{error} {error.__cause__ or ''}".split())
    return text.split(" Config search path:")[0].split(" full_key:")[0]


def plan(overrides: list[str], *, sweep: bool) -> list[Spec]:
    """Every run that a command line asks for, checked before the first one starts."""
    if not sweep:
        return [compose(overrides)]
    try:
        parsed = OverridesParser.create().parse_overrides(overrides)
    except HydraException as error:
        raise UserError(_one_line(error)) from None
    jobs = BasicSweeper.split_arguments(parsed, max_batch_size=None)[0]
    return [compose(list(job)) for job in jobs]


def found(runs: list[Spec]) -> dict[str, Record | None]:
    """The record of each run by its key, None where there is none."""
    return {spec.key(): records.read(folder_of(spec)) for spec in runs}


_sweep: Sweep | None = None  # the one that this process runs, for the line after each of its runs


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="config")
def _job(config: DictConfig) -> None:
    """One job of Hydra's launcher. A failure is in its record; the sweep goes on."""
    spec = Spec.from_config(config)
    given = hydra.core.hydra_config.HydraConfig.get().overrides.task
    command = ["python -m lora_bench", *(o for o in given if o.split("=")[0] not in PLACES)]
    done = records.read(folder_of(spec))
    skipped = done is not None and done.status == "ok"
    try:
        record = run(spec, " ".join(command))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
    except Exception as error:
        where = folder_of(spec) / "traceback.txt"
        print(
            f"error: {spec.key()} failed: {type(error).__name__}: {error} (traceback: {where})",
            file=sys.stderr,
        )
    else:
        announce(record, folder_of(spec), skipped=skipped)
    if _sweep is not None:
        _sweep.note(found([spec]))
        if not skipped:
            print(f"[{_sweep.progress()}]", file=sys.stderr)


def main() -> None:
    args = get_args_parser().parse_args()
    if args.help or args.hydra_help or args.cfg or args.info or args.shell_completion:
        _job()
        return
    try:
        overrides = expand(args.overrides, sweep=args.multirun)
        runs = plan(overrides, sweep=args.multirun)
    except UserError as error:
        sys.exit(f"error: {error}")
    sys.argv = [
        sys.argv[0],
        *(a for a in sys.argv[1:] if a not in args.overrides),
        *overrides,
    ]  # presets expanded
    if args.multirun:
        _start(runs, overrides)
    try:
        _job()
    except KeyboardInterrupt:
        sys.exit("interrupted: finished runs are kept, the same command does what is missing")
    _end(runs)


def _start(runs: list[Spec], overrides: list[str]) -> None:
    """Say how much there is to do, and note the plan for ``report status``."""
    global _sweep
    _sweep = Sweep(runs, found(runs))
    print(f"sweep: {_sweep.progress()}", file=sys.stderr)
    command = ["python -m lora_bench -m", *(o for o in overrides if o.split("=")[0] not in PLACES)]
    records.write_plan(Path(runs[0].out_dir), " ".join(command), list(_sweep.runs))


def _end(runs: list[Spec]) -> None:
    """Exit with an error, and the reason of each failure, where a run has no record of success."""
    bad = {
        key: record
        for key, record in found(runs).items()
        if record is None or record.status != "ok"
    }
    if not bad:
        return
    if len(runs) == 1:
        sys.exit(1)
    reasons = [
        f"  {key}: {record.error if record else 'left no record'}" for key, record in bad.items()
    ]
    sys.exit("\n".join([f"error: {len(bad)} of {len(runs)} runs failed:", *reasons]))


if __name__ == "__main__":
    main()
