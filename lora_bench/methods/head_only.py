"""Linear probing: the default policy freezes the whole encoder, so only the head learns."""

from . import Method

METHOD = Method
