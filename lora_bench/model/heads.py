"""Task heads: from the encoder's last hidden states to logits."""

import torch
from torch import Tensor, nn


class SequenceHead(nn.Module):
    """transformers' RobertaClassificationHead, with the same parameter names.

    Its initial values are those of PyTorch's linear layers; transformers draws N(0, 0.02^2).
    Dropout, dense, tanh, dropout and out_proj on the first token. On roberta-base with two classes
    it has 592,130 parameters, as in microsoft/LoRA, which trains them with the adapter.
    """

    def __init__(self, hidden_size: int, outputs: int, dropout: float):
        super().__init__()
        self.dense = nn.Linear(hidden_size, hidden_size)
        self.dropout = nn.Dropout(dropout)
        self.out_proj = nn.Linear(hidden_size, outputs)

    def forward(self, first: Tensor) -> Tensor:
        """first (B, D), the first token of each example -> (B, outputs)."""
        return self.out_proj(self.dropout(torch.tanh(self.dense(self.dropout(first)))))


class TokenHead(nn.Linear):
    """transformers' head of RobertaForQuestionAnswering: one linear layer; ``dropout`` is ignored.

    (T, D) -> (T, outputs), a row for every token.
    """

    def __init__(self, hidden_size: int, outputs: int, dropout: float):
        super().__init__(hidden_size, outputs)


class ArticleTokenHead(nn.Module):
    """The article's head: LayerNorm, dropout, linear."""

    def __init__(self, hidden_size: int, outputs: int, dropout: float):
        super().__init__()
        self.norm = nn.LayerNorm(hidden_size)
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(hidden_size, outputs)

    def forward(self, hidden: Tensor) -> Tensor:
        """hidden (T, D) -> (T, outputs)."""
        return self.classifier(self.dropout(self.norm(hidden)))


class ArticleSequenceHead(ArticleTokenHead):
    """The article's head on the first token; a single output (STS-B) becomes 5 * sigmoid."""

    def forward(self, hidden: Tensor) -> Tensor:
        """hidden (B, D), the first token of each example -> (B, outputs)."""
        logits = super().forward(hidden)
        return 5 * torch.sigmoid(logits) if self.classifier.out_features == 1 else logits


# (level, style): whether it reads first tokens or every token, and whose head it is.
HEADS: dict[tuple[str, str], type[nn.Module]] = {
    ("sequence", "standard"): SequenceHead,
    ("sequence", "article"): ArticleSequenceHead,
    ("token", "standard"): TokenHead,
    ("token", "article"): ArticleTokenHead,
}
