"""A model's parameters and which of them are trained, as numbers and as text."""

import math

import pandas as pd
from torch import nn

from .inject import adapter_parameters

GROUPS = ("adapter", "head", "bias", "norm", "other")


def parameter_table(model: nn.Module) -> pd.DataFrame:
    """One row per parameter of a wrapper: group, name, shape, count, trained."""
    adapters = {id(p) for p in adapter_parameters(model).values()}
    norms = {id(p) for m in model.modules() if isinstance(m, nn.LayerNorm) for p in m.parameters()}

    def group(name: str, parameter: nn.Parameter) -> str:
        if id(parameter) in adapters:
            return "adapter"
        if name.startswith("head."):
            return "head"
        if id(parameter) in norms:
            return "norm"
        return "bias" if name.endswith(".bias") else "other"

    rows = [
        (group(name, p), name, _shape(p), math.prod(_shape(p)), p.requires_grad)
        for name, p in model.named_parameters()
    ]
    return pd.DataFrame(rows, columns=["group", "name", "shape", "count", "trained"])


def _shape(parameter: nn.Parameter) -> tuple[int, ...]:
    # bitsandbytes packs two 4-bit weights into a byte
    packed = getattr(parameter, "quant_state", None)
    return tuple(packed.shape if packed is not None else parameter.shape)


def parameter_counts(model: nn.Module) -> dict[str, int]:
    """Trained parameters of each group, with ``trained`` and ``total`` over all groups."""
    table = parameter_table(model)
    trained = table[table.trained]
    counts = {name: int(trained.loc[trained.group == name, "count"].sum()) for name in GROUPS}
    return {**counts, "trained": int(trained["count"].sum()), "total": int(table["count"].sum())}


def parameter_text(model: nn.Module) -> str:
    """The parameter table as Markdown: a block per group, with its trained share."""
    table, blocks = parameter_table(model), []
    for group in GROUPS:
        rows = table[table.group == group].drop(columns="group")
        trained = rows.loc[rows.trained, "count"].sum()
        shown = rows.assign(trained=rows.trained.map({True: "yes", False: "no"}))
        blocks.append(f"{group}: {trained:,} of {rows['count'].sum():,} trained")
        if len(rows):
            blocks.append(shown.to_markdown(index=False, intfmt=","))
    counts = parameter_counts(model)
    total = f"all: {counts['trained']:,} of {counts['total']:,} trained"
    return "\n\n".join([*blocks, total]) + "\n"
