"""Task heads: from the encoder's last hidden states to logits."""

import torch
from torch import Tensor, nn


class SequenceHead(nn.Module):
    """transformers' RobertaClassificationHead, same names: dropout, dense, tanh, dropout, out_proj on the first token.

    roberta-base with two classes: 592,130 parameters, as microsoft/LoRA trains them beside the adapter.
    """

    def __init__(self, hidden_size: int, outputs: int, dropout: float):
        super().__init__()
        self.dense = nn.Linear(hidden_size, hidden_size)
        self.dropout = nn.Dropout(dropout)
        self.out_proj = nn.Linear(hidden_size, outputs)

    def forward(self, first: Tensor) -> Tensor:
        """first (B, D), the first token of each example -> (B, outputs)."""
        return self.out_proj(self.dropout(torch.tanh(self.dense(self.dropout(first)))))


class ArticleSequenceHead(nn.Module):
    """The article's head: LayerNorm, dropout, linear on the first token; one output (STS-B) is 5 * sigmoid of it."""

    def __init__(self, hidden_size: int, outputs: int, dropout: float):
        super().__init__()
        self.regression = outputs == 1
        self.norm = nn.LayerNorm(hidden_size)
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(hidden_size, outputs)

    def forward(self, first: Tensor) -> Tensor:
        """first (B, D) -> (B, outputs)."""
        logits = self.classifier(self.dropout(self.norm(first)))
        return 5 * torch.sigmoid(logits) if self.regression else logits


class SpanHead(nn.Linear):
    """transformers' RobertaForQuestionAnswering head: start and end logit of every token."""

    def __init__(self, hidden_size: int, outputs: int | None, dropout: float):
        super().__init__(hidden_size, 2)


class ArticleSpanHead(ArticleSequenceHead):
    """The article's head on every token: start and end logit, and for SQuAD v2 a no-answer logit."""


HEADS = {
    ("text", "standard"): SequenceHead,
    ("text", "article"): ArticleSequenceHead,
    ("span", "standard"): SpanHead,
    ("span", "article"): ArticleSpanHead,
}
