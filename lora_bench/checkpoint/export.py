"""Export our adapters: to a PEFT folder, or to a plain transformers model."""

import copy
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import PreTrainedModel

from ..errors import one_line
from ..files import expanded, whole_folder
from ..methods import Method, require
from ..methods.peft import ADAPTER, REFUSALS, Peft, ignore_noise
from ..model.encoder import load_encoder, load_tokenizer, quiet, stock_architecture
from ..model.inject import adapter_parameters, lora_layers
from ..model.lora import LoraLinear
from ..model.source import locate
from ..model.wrapper import LoraWrapperRoberta
from ..spec import MethodSpec, Spec
from ..tasks import Stock
from .facts import AdapterError
from .peft_config import BIASES
from .probe import check_same, probe
from .restore import load_model, plain_encoder, stock_model, stock_of, to_stock

PEFT_BIASES = {ours: theirs for theirs, ours in BIASES.items()}
BASE_FOLDER = "base_model"
EMBEDDINGS = ["word_embeddings", "position_embeddings", "token_type_embeddings"]
# Fields of PEFT's configurations that match full module names if they hold a regular expression.
PATTERNS = ("target_modules", "exclude_modules", "feedforward_modules")


def merge(folder: Path, out: Path) -> str:
    """Write an equivalent plain transformers folder, including the tokenizer.

    The result is loaded again and must give the same outputs before the folder appears.

    Args:
        folder: folder of the adapter.
        out: folder to write to.

    Returns:
        Name of the transformers class that loads it.

    Raises:
        AdapterError: the method's modules cannot be merged into weights, transformers has no such
            head, or the written model gives different outputs.
    """
    model, spec, method = load_model(folder)
    expected = probe(model)
    try:
        if isinstance(method, Peft):
            method.tuner.merge_and_unload()
        for layer in lora_layers(model):
            layer.merge()
    except (RuntimeError, NotImplementedError, AttributeError) as error:
        raise AdapterError(f"method={spec.method.name}: cannot be merged: {error}") from None
    plain = stock_model(plain_encoder(model), model.head, spec)
    with whole_folder(out) as part:
        plain.save_pretrained(part)
        load_tokenizer(spec.model).save_pretrained(part)
        check_same(out, expected, _loaded(spec, str(part)))
    return stock_of(spec.task).model


def export_peft(folder: Path, out: Path) -> None:
    """Write a LoRA adapter, or one that PEFT's layers trained, for ``PeftModel.from_pretrained``.

    A base model that transformers does not load as a RoBERTa (a BERT, a random one) is written to
    ``out/base_model``. The result is loaded by PEFT and must give the same outputs before the
    folder appears.

    Args:
        folder: folder of the adapter.
        out: folder to write to.

    Raises:
        AdapterError: PEFT has no layers for what the method trains, or does not save it; the head
            is the article's; or the written adapter gives different outputs.
        UserError: PEFT is not installed.
    """
    peft = require("peft", "peft", "a PEFT folder")
    model, spec, method = load_model(folder)
    adapters = adapter_parameters(model).keys()
    of_lora = adapters and all(name.endswith((".lora_a", ".lora_b")) for name in adapters)
    if not (of_lora or isinstance(method, Peft)):
        raise AdapterError(
            f"method={spec.method.name}: PEFT has no layers for what it trains; must be LoRA of "
            "this project or a method of PEFT"
        )
    expected = probe(model)
    with whole_folder(out) as part:
        base = _base(spec, part)
        inside = base == str(part / BASE_FOLDER)
        stated = str((out / BASE_FOLDER).absolute()) if inside else base
        wrapped = _as_peft(peft, model, spec, method, stated)
        try:
            # PEFT would look at the base model to find out whether its embeddings were resized
            wrapped.save_pretrained(part, save_embedding_layers=False)
            with _peft_quiet():
                again = peft.PeftModel.from_pretrained(_loaded(spec, base), part)
        except REFUSALS as error:
            reason = f"PEFT cannot load its own folder: {one_line(error)}"
            raise AdapterError(f"method={spec.method.name}: {reason}") from None
        check_same(out, expected, again)


def _as_peft(peft: Any, model: LoraWrapperRoberta, spec: Spec, method: Method, base: str) -> Any:
    """The model as a PEFT model with the adapter's values; removes LoraLinear from ``model``."""
    stock = stock_of(spec.task)
    trained = {to_stock(name, stock): tensor for name, tensor in model.trained_state().items()}
    if isinstance(method, Peft):
        config = _peft_config(method, spec.method, stock)
        encoder = load_encoder(spec.model, dropout=0.0)  # PEFT's layers replaced those of model
    else:
        config = _lora_config(peft, spec.method, model, stock)
        encoder = plain_encoder(model)
    target = stock_model(encoder, model.head, spec)
    # biases, LayerNorms and embeddings that were trained besides the adapter
    target.load_state_dict(
        {name.replace(".base_layer.", "."): tensor for name, tensor in trained.items()},
        strict=False,
    )
    target.name_or_path = base  # PEFT takes the base model's name from here
    with _peft_quiet():
        wrapped = peft.get_peft_model(target, config)
    with torch.no_grad():
        # vectors that several layers share have a name in each of them
        for name, parameter in wrapped.base_model.model.named_parameters(remove_duplicate=False):
            ours = name.replace(".lora_A.default.weight", ".lora_a").replace(
                ".lora_B.default.weight", ".lora_b"
            )
            for known in (name, ours):
                if known in trained:
                    parameter.copy_(trained[known])
    return wrapped


def _loaded(spec: Spec, source: str) -> PreTrainedModel:
    """A saved model or a base model, as the transformers class for the task."""
    stock = stock_of(spec.task)
    with quiet():
        return getattr(transformers, stock.model).from_pretrained(
            source, trust_remote_code=False, dtype=torch.float32, **stock.config
        )


def _lora_config(peft: Any, method: MethodSpec, model: LoraWrapperRoberta, stock: Stock) -> Any:
    """The LoraConfig of an adapter; ``model`` still has its LoraLinear layers."""
    layers = model.encoder.named_modules()
    return peft.LoraConfig(
        r=method.rank,
        lora_alpha=method.alpha,
        use_rslora=method.rank_stabilized,
        lora_dropout=method.dropout,
        target_modules=[name for name, layer in layers if isinstance(layer, LoraLinear)],
        bias=PEFT_BIASES[method.biases],
        task_type=stock.peft,
        modules_to_save=_saved_modules(method, stock),
    )


def _peft_config(peft_method: Peft, method: MethodSpec, stock: Stock) -> Any:
    """The configuration that PEFT's layers were made with, for the transformers class.

    Raises:
        AdapterError: PEFT does not save the biases of such a method.
    """
    config: Any = copy.deepcopy(peft_method.tuner.peft_config[ADAPTER])
    for field in PATTERNS:
        pattern = getattr(config, field, None)
        if isinstance(pattern, str):
            setattr(config, field, rf"roberta\.(?:{pattern})")
    if method.biases != "none":
        if not hasattr(config, "bias"):
            raise AdapterError(
                f"method.biases={method.biases}: PEFT does not save biases with "
                f"{method.peft_type}; must be none"
            )
        config.bias = PEFT_BIASES[method.biases].replace("lora", str(method.peft_type).lower())
    config.task_type = stock.peft
    config.modules_to_save = _saved_modules(method, stock)
    return config


def _saved_modules(method: MethodSpec, stock: Stock) -> list[str]:
    """Names of the modules besides the adapter that are trained in full, for PEFT."""
    layer_norms = ["LayerNorm"] * method.layer_norms
    return [stock.head, *layer_norms, *EMBEDDINGS * method.embeddings]


@contextmanager
def _peft_quiet() -> Iterator[None]:
    """Inside the block, nobody warns of what a user cannot change, such as a deprecated call."""
    with warnings.catch_warnings():
        ignore_noise()
        warnings.filterwarnings("ignore", category=FutureWarning)
        yield


def _base(spec: Spec, out: Path) -> str:
    """The base model of a PEFT folder: its source, or a copy next to it in RoBERTa's layout."""
    source = spec.model.source
    if stock_architecture(spec.model):
        of_hub = not source.startswith("package:") and not expanded(source).is_dir()
        return source if of_hub else str(locate(spec.model).absolute())
    base = load_encoder(spec.model, dropout=0.0)
    base.config.architectures = None
    base.save_pretrained(out / BASE_FOLDER)
    load_tokenizer(spec.model).save_pretrained(out / BASE_FOLDER)
    return str(out / BASE_FOLDER)
