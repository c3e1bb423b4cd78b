"""The embeddings of the tokens of all runs."""

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers.models.roberta.modeling_roberta import RobertaEmbeddings

from .packing import Batch
from .projection import shared


def embed(tables: Sequence[RobertaEmbeddings], batch: Batch, counts: Sequence[int]) -> Tensor:
    """The embeddings of all tokens (T, D).

    Args:
        tables: embedding tables of each run.
        batch: tokens of all runs.
        counts: number of tokens of each run.
    """
    ids = torch.stack([batch.input_ids, batch.position_ids, batch.token_type_ids])  # (3, T)
    weights = [list(table.parameters()) for table in tables]
    if all(map(shared, zip(*weights, strict=True))):
        return _embed_one(tables[0], ids)
    pairs = zip(tables, ids.split(counts, 1), strict=True)
    return torch.cat([_embed_one(table, own) for table, own in pairs])


def _embed_one(table: RobertaEmbeddings, ids: Tensor) -> Tensor:
    words, positions, types = ids
    total = table.word_embeddings(words) + table.position_embeddings(positions)
    return table.LayerNorm(total + table.token_type_embeddings(types))
