"""Linear probing: the default policy freezes the whole encoder, so only the head is trained."""

from . import Method

METHOD = Method
