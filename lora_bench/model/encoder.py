"""Load a pretrained encoder as a RobertaModel, with its tokenizer."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import (
    AutoConfig,
    AutoTokenizer,
    BertModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaModel,
)
from transformers.utils import logging

from ..errors import UserError, counted, first_line
from ..spec import ModelSpec
from .attention import ATTENTION
from .source import OFFLINE, TINY, locate

# Seed of the random encoder's weights: the same for every run, so that runs differ only by seed.
TINY_SEED = 0
# Settings of a checkpoint under which it would compute something else than our forward pass does.
# transformers ignores relative positions, too.
PLAIN = {"is_decoder": False, "position_embedding_type": "absolute"}


def load_tokenizer(model: ModelSpec) -> PreTrainedTokenizerBase:
    """The fast tokenizer of ``model``.

    Raises:
        UserError: it cannot be loaded.
    """
    if model.source == TINY:
        return _tiny_tokenizer()
    tokenizer = _load(AutoTokenizer, model)
    if getattr(_load(AutoConfig, model), "type_vocab_size", 0) < 2:  # as of a RoBERTa
        names = tokenizer.model_input_names
        tokenizer.model_input_names = [name for name in names if name != "token_type_ids"]
    return tokenizer


def load_encoder(model: ModelSpec, *, dropout: float) -> RobertaModel:
    """The encoder in fp32 on the CPU, without a pooler, attending over packed batches.

    Args:
        model: the model to load.
        dropout: probability for hidden states and attention.

    Raises:
        UserError: it cannot be loaded, or is neither a RoBERTa nor a BERT with bidirectional
            attention and absolute positions.
    """
    rates = {"hidden_dropout_prob": dropout, "attention_probs_dropout_prob": dropout}
    if model.source == TINY:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(TINY_SEED)
            config = tiny_config(**rates, attn_implementation=ATTENTION)
            return RobertaModel(config, add_pooling_layer=False)
    config = _load(AutoConfig, model)
    _check_config(model, config)
    loader = BertModel if config.model_type == "bert" else RobertaModel
    with quiet():
        loaded, found = _load(
            loader,
            model,
            dtype=torch.float32,
            add_pooling_layer=False,
            output_loading_info=True,
            **rates,
        )
    if missing := sorted(found["missing_keys"]):  # transformers would initialize them at random
        raise UserError(
            f"model.source={model.source}: its weights lack {counted(len(missing), 'tensor')}: "
            f"{', '.join(missing[:3])}{' ...' if len(missing) > 3 else ''}"
        )
    encoder = roberta_from_bert(loaded) if config.model_type == "bert" else loaded
    encoder.set_attn_implementation(ATTENTION)
    return encoder.train()


def _check_config(model: ModelSpec, config: Any) -> None:
    """Refuse a checkpoint that our forward pass does not compute.

    Raises:
        UserError: names the setting of its config.json and what is allowed.
    """
    if config.model_type not in ("roberta", "xlm-roberta", "bert"):
        raise UserError(
            f"model.source={model.source}: is a {config.model_type}; must be a RoBERTa or a BERT"
        )
    if config.pad_token_id is None and config.model_type != "bert":
        raise UserError(
            f"model.source={model.source}: pad_token_id=None in its configuration; must be a "
            "number, after which positions are counted"
        )
    check_plain(f"model.source={model.source}", config, UserError)


def check_plain(origin: str, config: Any, error: type[Exception]) -> None:
    """Refuse the configuration of an encoder that our forward pass does not compute.

    Args:
        origin: origin of the configuration, for the message.
        config: the configuration.
        error: class of the error.

    Raises:
        Exception: an ``error`` that names the setting and what is allowed.
    """
    for name, plain in PLAIN.items():
        value = getattr(config, name, plain)
        if value != plain:
            raise error(f"{origin}: {name}={value} in its configuration; must be {plain}")


@contextmanager
def quiet() -> Iterator[None]:
    """Inside the block, transformers does not list a checkpoint's unused and missing parts."""
    verbosity, has_bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if has_bars:
            logging.enable_progress_bar()


def stock_architecture(model: ModelSpec) -> bool:
    """Whether transformers itself loads ``model`` as ``RobertaModel``."""
    return model.source != TINY and _load(AutoConfig, model).model_type == "roberta"


def layer_count(model: ModelSpec) -> int:
    """Number of the encoder's layers."""
    config = tiny_config() if model.source == TINY else _load(AutoConfig, model)
    return config.num_hidden_layers


def roberta_from_bert(bert: BertModel) -> RobertaModel:
    """An equivalent RobertaModel: positions shift by ``pad_token_id + 1``."""
    settings = {
        k: v
        for k, v in bert.config.to_dict().items()
        if k not in ("model_type", "architectures", "dtype")
    }
    settings["pad_token_id"] = bert.config.pad_token_id or 0  # null: a BERT needs none
    shift = settings["pad_token_id"] + 1
    settings["max_position_embeddings"] += shift
    roberta = RobertaModel(RobertaConfig(**settings), add_pooling_layer=False)
    state = bert.state_dict()
    for name in [n for n in state if n.startswith("pooler.")]:
        del state[name]
    positions = state["embeddings.position_embeddings.weight"]
    state["embeddings.position_embeddings.weight"] = torch.cat(
        [positions.new_zeros(shift, positions.shape[1]), positions]
    )
    roberta.load_state_dict(state)
    return roberta


def max_tokens(encoder: RobertaModel) -> int:
    """Length in tokens of the longest example that the position table allows."""
    return encoder.config.max_position_embeddings - first_position(encoder)


def first_position(encoder: RobertaModel) -> int:
    """Position of a first token: RoBERTa counts from ``padding_idx + 1``."""
    return encoder.embeddings.padding_idx + 1


def tiny_config(**settings: Any) -> RobertaConfig:
    """Two layers, 32 wide, for the byte-level tokenizer below."""
    return RobertaConfig(
        vocab_size=261,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=514,
        type_vocab_size=1,
        pad_token_id=1,
        bos_token_id=0,
        eos_token_id=2,
        layer_norm_eps=1e-5,
        **settings,
    )


def _tiny_tokenizer() -> PreTrainedTokenizerFast:
    """RoBERTa's byte-level scheme without merges: one token per byte, plus special tokens."""
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {token: index for index, token in enumerate(special + alphabet)}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[], unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.RobertaProcessing(
        ("</s>", 2), ("<s>", 0), trim_offsets=True, add_prefix_space=False
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        eos_token="</s>",
        cls_token="<s>",
        sep_token="</s>",
        pad_token="<pad>",
        unk_token="<unk>",
        mask_token="<mask>",
        model_max_length=512,
    )


def _load(loader: Any, model: ModelSpec, **settings: Any) -> Any:
    """``from_pretrained`` of a transformers class; code in a model folder is never run."""
    folder = str(locate(model))
    try:
        return loader.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False, **settings
        )
    except Exception as error:  # a damaged file may raise anything
        reason = first_line(error)
        if not isinstance(error, OSError | ValueError):
            reason = f"{type(error).__name__}: {reason}"
        if "trust_remote_code" in str(error):
            reason = "it brings code of its own, which is never run"
        raise UserError(
            f"model.source={model.source}: cannot be loaded ({reason}); {OFFLINE}"
        ) from error
