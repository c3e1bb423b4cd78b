"""BitFit (Ben Zaken et al. 2021, arXiv 2106.10199): the preset's policy ``biases=all`` is the whole method."""

from . import Method

METHOD = Method
