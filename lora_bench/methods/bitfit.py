"""BitFit (Ben Zaken et al. 2021, arXiv 2106.10199): the preset's ``biases=all`` is the method."""

from . import Method


class BitFit(Method):
    """A frozen encoder except for what the freezing policy trains."""

    grouped = stateless = True


METHOD = BitFit
