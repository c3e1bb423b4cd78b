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
from .restore import PLAIN_CONFIG, load_model, plain_encoder, stock_model, stock_of, to_stock

PEFT_BIASES = {ours: theirs for theirs, ours in BIASES.items()}
BASE_FOLDER = "base_model"
EMBEDDINGS = ["word_embeddings", "position_embeddings", "token_type_embeddings"]
QUESTIONS = "QUESTION_ANS"  # PEFT's name for a task with a token head


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
        try:
            with _peft_strict():
                wrapped = _as_peft(peft, model, spec, method, stated)
                # PEFT would look at the base model to find out if its embeddings were resized
                wrapped.save_pretrained(part, save_embedding_layers=False)
                again = peft.PeftModel.from_pretrained(_loaded(spec, base), part)
        except (*REFUSALS, RuntimeError) as error:
            reason = f"PEFT cannot hold this adapter: {one_line(error)}"
            raise AdapterError(f"method={spec.method.name}: {reason}") from None
        check_same(out, expected, again)


def _as_peft(peft: Any, model: LoraWrapperRoberta, spec: Spec, method: Method, base: str) -> Any:
    """The model as a PEFT model with the adapter's values; removes LoraLinear from ``model``."""
    stock = stock_of(spec.task)
    trained = {to_stock(name, stock): tensor for name, tensor in model.trained_state().items()}
    if isinstance(method, Peft):
        config = _peft_config(method, spec.method, model)
        encoder = load_encoder(spec.model, dropout=0.0)  # PEFT's layers replaced those of model
    else:
        config = _lora_config(peft, spec.method, model)
        encoder = plain_encoder(model)
    config.revision = spec.model.revision
    config.modules_to_save = _saved_modules(spec.method, stock)
    # PEFT's model for question answering does not pass on the token types of a BERT
    loses_types = stock.peft == QUESTIONS and encoder.config.type_vocab_size > 1
    config.task_type = None if loses_types else stock.peft
    target = stock_model(encoder, model.head, spec)
    # biases, LayerNorms and embeddings that were trained besides the adapter
    plain = {name: name.replace(".base_layer.", ".") for name in trained}
    target.load_state_dict({plain[name]: tensor for name, tensor in trained.items()}, strict=False)
    target.name_or_path = base  # PEFT takes the base model's name from here
    # those of the adapter, until they are copied below
    lost = {name for name in trained if plain[name] not in target.state_dict()}
    wrapped = peft.get_peft_model(target, config)
    with torch.no_grad():
        # vectors that several layers share have a name in each of them
        for name, parameter in wrapped.base_model.model.named_parameters(remove_duplicate=False):
            ours = name.replace(".lora_A.default.weight", ".lora_a").replace(
                ".lora_B.default.weight", ".lora_b"
            )
            for known in {name, ours} & trained.keys():
                parameter.copy_(trained[known])
                lost.discard(known)
    if lost:
        raise AdapterError(
            f"method={spec.method.name}: PEFT has no place for {', '.join(sorted(lost)[:3])}, for "
            "example because it does not adapt a module that is trained in full too"
        )
    return wrapped


def _loaded(spec: Spec, source: str) -> PreTrainedModel:
    """A saved model or a base model, as the transformers class for the task."""
    stock = stock_of(spec.task)
    with quiet():
        return getattr(transformers, stock.model).from_pretrained(
            source,
            revision=spec.model.revision or "main",
            trust_remote_code=False,
            dtype=torch.float32,
            ignore_mismatched_sizes=True,  # a base model may have the head of another task
            **{**PLAIN_CONFIG, **stock.config},
        )


def _lora_config(peft: Any, method: MethodSpec, model: LoraWrapperRoberta) -> Any:
    """The LoraConfig of an adapter; ``model`` still has its LoraLinear layers."""
    layers = model.encoder.named_modules()
    return peft.LoraConfig(
        r=method.rank,
        lora_alpha=method.alpha,
        use_rslora=method.rank_stabilized,
        lora_dropout=method.dropout,
        target_modules=[name for name, layer in layers if isinstance(layer, LoraLinear)],
        bias=PEFT_BIASES[method.biases],
    )


def _peft_config(peft_method: Peft, method: MethodSpec, model: LoraWrapperRoberta) -> Any:
    """The configuration that PEFT's layers were made with, for the transformers class.

    A regular expression would have to match other names there, so the modules are listed.

    Raises:
        AdapterError: PEFT does not save the biases of such a method.
    """
    config: Any = copy.deepcopy(peft_method.tuner.peft_config[ADAPTER])
    adapted: dict[str, Any] = {
        f"roberta.{name}": model.encoder.get_submodule(name)
        for name in peft_method.tuner.targeted_module_names
    }
    if isinstance(config.target_modules, str):
        config.target_modules, config.exclude_modules = list(adapted), None
    if isinstance(getattr(config, "feedforward_modules", None), str):
        config.feedforward_modules = [n for n, layer in adapted.items() if layer.is_feedforward]
    if method.peft_type == "LORA" and config.rank_pattern:
        config.rank_pattern = {name: layer.r[ADAPTER] for name, layer in adapted.items()}
    if method.peft_type == "LORA" and config.alpha_pattern:
        config.alpha_pattern = {n: layer.lora_alpha[ADAPTER] for n, layer in adapted.items()}
    if method.biases != "none":
        if not hasattr(config, "bias"):
            raise AdapterError(
                f"method.biases={method.biases}: PEFT does not save biases with "
                f"{method.peft_type}; must be none"
            )
        config.bias = PEFT_BIASES[method.biases].replace("lora", str(method.peft_type).lower())
    return config


def _saved_modules(method: MethodSpec, stock: Stock) -> list[str]:
    """Names of the modules besides the adapter that are trained in full, for PEFT."""
    layer_norms = ["LayerNorm"] * method.layer_norms
    return [stock.head, *layer_norms, *EMBEDDINGS * method.embeddings]


@contextmanager
def _peft_strict() -> Iterator[None]:
    """Inside the block, PEFT's warnings are errors: it warns of keys that it does not use.

    What a user cannot change, such as a deprecated call, is ignored.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("error", category=UserWarning, module="peft")
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
