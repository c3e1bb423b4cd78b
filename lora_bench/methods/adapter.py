"""Bottleneck adapters inside each encoder layer, placed as in two papers.

``houlsby`` (Houlsby et al. 2019, arXiv 1902.00751) adds two to a layer, ``pfeiffer`` (Pfeiffer et
al. 2021, arXiv 2005.00247) one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..checks import check_count
from ..spec import MethodSpec, Spec
from . import Method, arguments, one_of

if TYPE_CHECKING:
    from ..model.wrapper import LoraWrapperRoberta


@dataclass
class AdapterArgs:
    """Settings that only adapters have."""

    bottleneck: int  # width between the two layers
    placement: str  # houlsby | pfeiffer


class Adapter(Method):
    """Bottlenecks, and the freezing policy on the encoder's own parameters."""

    Args = AdapterArgs
    grouped = stateless = True

    @classmethod
    def check(cls, spec: Spec) -> None:
        """See ``Method.check``."""
        super().check(spec)
        args = arguments(spec, AdapterArgs)
        check_count("method.args.bottleneck", args.bottleneck, 1)
        one_of("method.args.placement", args.placement, ("houlsby", "pfeiffer"))

    @classmethod
    def function_settings(cls, method: MethodSpec) -> dict[str, Any]:
        """See ``Method.function_settings``."""
        return {"args.placement": method.args["placement"]}

    def prepare(self, model: LoraWrapperRoberta, spec: Spec) -> None:
        """Add a bottleneck at each place and freeze the rest."""
        from ..model.bottleneck import add_houlsby, add_pfeiffer

        args = arguments(spec, AdapterArgs)
        add = add_houlsby if args.placement == "houlsby" else add_pfeiffer
        add(model.encoder, args.bottleneck)
        super().prepare(model, spec)


METHOD = Adapter
