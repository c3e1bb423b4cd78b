"""Writes an encoder of roberta-base's shape with random weights: for timings without a network."""

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch
from transformers import RobertaConfig, RobertaModel

from lora_bench.compose import compose
from lora_bench.model.encoder import load_tokenizer


def main(words: Sequence[str] | None = None) -> None:
    """Write weights, config and a byte-level tokenizer, with the sizes of Liu et al. 2019."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.random_encoder", description=__doc__
    )
    parser.add_argument("folder", type=Path, help="is created")
    folder = parser.parse_args(words).folder
    torch.manual_seed(0)
    config = RobertaConfig(
        vocab_size=50_265,
        max_position_embeddings=514,
        type_vocab_size=1,
        layer_norm_eps=1e-5,
    )
    RobertaModel(config, add_pooling_layer=False).save_pretrained(folder)
    load_tokenizer(compose(["model=tiny"]).model).save_pretrained(folder)


if __name__ == "__main__":
    main()
