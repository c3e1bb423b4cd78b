"""BitFit (Ben Zaken et al. 2021, arXiv 2106.10199): the preset's ``biases=all`` is the method."""

from . import Method

METHOD = Method
