"""``adapter_config.json`` of a PEFT LoRA folder: every key is understood, or the folder is refused.

Needs neither PEFT nor torch.
"""

import json
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

from pydantic import ConfigDict, TypeAdapter, ValidationError

from ..errors import first_line, first_problem
from ..files import parse_json
from .facts import AdapterError

CONFIG = "adapter_config.json"
BIASES = {"none": "none", "lora_only": "adapted", "all": "all"}  # PEFT's name -> method.biases
# Initializations that leave the base model as it is. The others change its weights (PiSSA, OLoRA,
# LoftQ, CorDA, LoRA-GA) or the ranks of modules (EVA): their A and B belong to another base.
PLAIN_INIT = (True, False, "gaussian", "orthogonal")
# Keys that never change what a loaded adapter computes.
NO_EFFECT = frozenset(
    {
        "auto_mapping",
        "ensure_weight_tying",  # of embeddings with an output layer, which no task here has
        "inference_mode",
        "megatron_core",
        "merge_weights",  # of PEFT 0.2: whether inference merges
        "peft_version",
        "qalora_group_size",  # only used with use_qalora
    }
)
# Keys that enable features that LoraLinear lacks, unless they are null, false or empty.
OFF = frozenset(
    {
        "alora_invocation_tokens",
        "alpha_pattern",
        "arrow_config",
        "corda_config",
        "enable_lora",  # of PEFT 0.2: parts of a fused query, key and value
        "eva_config",
        "fan_in_fan_out",
        "kasa_config",
        "layer_replication",
        "loftq_config",
        "lora_bias",
        "lora_ga_config",
        "megatron_config",
        "monteclora_config",
        "rank_pattern",
        "target_parameters",
        "trainable_token_indices",
        "use_bdlora",
        "use_dora",
        "use_qalora",
        "velora_config",
    }
)
Names = str | list[str]


@dataclass
class LoraFacts:
    """The keys of a LoraConfig that we read, with PEFT's names and defaults."""

    __pydantic_config__ = ConfigDict(extra="forbid")
    peft_type: Literal["LORA"]
    r: int
    lora_alpha: float
    target_modules: Names  # suffixes of module names, or a regular expression for the whole name
    base_model_name_or_path: str | None = None
    revision: str | None = None  # of the base model
    task_type: str | None = None
    use_rslora: bool = False
    lora_dropout: float = 0.0
    bias: Literal["none", "lora_only", "all"] = "none"
    modules_to_save: list[str] | None = None  # name suffixes of modules that are fully trained
    init_lora_weights: bool | str = True
    layers_to_transform: int | list[int] | None = None
    layers_pattern: Names | None = None  # of the list of layers, "layer" in a RoBERTa
    exclude_modules: Names | None = None

    def adapts(self, module: str) -> bool:
        """Whether a linear module of this name gets an update, by PEFT's rules."""
        if self.exclude_modules and _named(self.exclude_modules, module):
            return False
        if self.target_modules == "all-linear":
            return True
        if not _named(self.target_modules, module):
            return False
        chosen = self.layers_to_transform
        whole = isinstance(self.target_modules, str) or module in self.target_modules
        if whole or chosen is None or chosen == []:
            return True
        layer = int(module.partition(".layer.")[2].partition(".")[0])
        return layer == chosen if isinstance(chosen, int) else layer in chosen

    def explains(self, parameter: str) -> bool:
        """Whether the configuration explains a parameter that is not a LoRA matrix."""
        saved = self.modules_to_save or []
        of_saved = any(f".{name}." in f".{parameter}" for name in saved)
        return of_saved or (self.bias != "none" and parameter.endswith(".bias"))


_schema = TypeAdapter(LoraFacts)


def read_config(folder: Path) -> LoraFacts:
    """The configuration of a PEFT folder.

    Raises:
        AdapterError: it cannot be read, has an unknown key, or needs a feature that LoraLinear
            lacks.
    """
    path = folder / CONFIG
    try:
        found = parse_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        inner = sorted(config.parent.name for config in folder.glob(f"*/{CONFIG}"))
        hint = f"; one is in {', '.join(inner)}" if inner else ""
        raise AdapterError(f"{folder}: no {CONFIG} there{hint}") from None
    except OSError as error:
        raise AdapterError(f"{path}: cannot be read ({error.strerror})") from None
    except ValueError as error:
        raise AdapterError(f"{path}: cannot be read ({error})") from None
    if not isinstance(found, dict):
        raise AdapterError(f"{path}: must be an object with PEFT's configuration")
    if found.get("peft_type") != "LORA":
        raise AdapterError(f"{path}: peft_type={str(found.get('peft_type'))[:60]}; must be LORA")
    known = {entry.name for entry in fields(LoraFacts)}
    for key, value in found.items():
        if key in OFF and value and not _repeats(key, value, found):
            raise AdapterError(f"{path}: uses {key}={_shown(value)}, which LoraLinear lacks")
        if key not in known | OFF | NO_EFFECT and value not in (None, [], {}):  # set, and unknown
            raise AdapterError(f"{path}: {key}={_shown(value)}: unknown; its effect is not known")
    facts = _typed(path, {key: value for key, value in found.items() if key in known})
    _check(path, facts)
    return facts


def _repeats(key: str, value: Any, found: dict[str, Any]) -> bool:
    """Whether ranks or alphas of single modules only repeat the one of all modules."""
    general = {"rank_pattern": "r", "alpha_pattern": "lora_alpha"}.get(key)
    if general is None or not isinstance(value, dict):
        return False
    return all(own == found.get(general) for own in value.values())


def _typed(path: Path, found: dict[str, Any]) -> LoraFacts:
    try:
        return _schema.validate_json(json.dumps(found), strict=True)
    except ValidationError as error:
        place, reason = first_problem(error)
        key = place.partition(".")[0] or "its text"
        value = _shown(found[key]) if key in found else "missing"
        raise AdapterError(f"{path}: {key}={value}: {reason}") from None


def _check(path: Path, facts: LoraFacts) -> None:
    if facts.init_lora_weights not in PLAIN_INIT:
        raise AdapterError(
            f"{path}: init_lora_weights={facts.init_lora_weights}: changes the base model or the "
            "ranks of modules; must be true, false, gaussian or orthogonal"
        )
    for key, valid, allowed in (
        ("lora_alpha", 0 < facts.lora_alpha < math.inf, "a finite number above 0"),
        ("lora_dropout", 0 <= facts.lora_dropout < 1, "at least 0 and below 1"),
    ):
        if not valid:
            raise AdapterError(f"{path}: {key}={getattr(facts, key)}: must be {allowed}")
    saved = facts.modules_to_save or []
    if inner := [name for name in saved for outer in saved if name.startswith(f"{outer}.")]:
        reason = "is inside another saved module; PEFT cannot load it either"
        raise AdapterError(f"{path}: modules_to_save={_shown(saved)}: {inner[0]} {reason}")
    if facts.layers_pattern not in (None, "", [], "layer", ["layer"]):
        raise AdapterError(f"{path}: layers_pattern={facts.layers_pattern}: must be layer")
    for key in ("target_modules", "exclude_modules"):
        names = getattr(facts, key)
        try:
            re.compile(names if isinstance(names, str) else "")
        except (re.error, OverflowError, RecursionError) as error:
            raise AdapterError(f"{path}: {key}={_shown(names)}: {first_line(error)}") from None


def check_modules(path: Path, facts: LoraFacts, held: Iterable[str], known: Iterable[str]) -> None:
    """Compare the modules that a configuration names with those that have matrices in a file.

    Args:
        path: path of the configuration, for messages.
        facts: the configuration.
        held: modules that have LoRA matrices in the file.
        known: every linear module of the encoder.

    Raises:
        AdapterError: names modules that are in only one of the two, or not in the encoder.
    """
    known, held = set(known), set(held)
    if outside := sorted(held - known):
        raise AdapterError(
            f"{path}: adapts {', '.join(outside[:3])}; must be linear layers of the encoder"
        )
    named = {module for module in known if facts.adapts(module)}
    for modules, reason in (
        (named - held, "the file has no LoRA matrices of them"),
        (held - named, "the configuration does not name them"),
    ):
        if modules:
            listed = ", ".join(sorted(modules)[:3])
            raise AdapterError(
                f"{path}: target_modules={_shown(facts.target_modules)} contradicts the tensors; "
                f"of {listed}: {reason}"
            )


def _named(names: Names, module: str) -> bool:
    if isinstance(names, str):
        return re.fullmatch(names, module) is not None
    return any(module == name or module.endswith(f".{name}") for name in names)


def _shown(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."
