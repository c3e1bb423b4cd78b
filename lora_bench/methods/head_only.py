"""Linear probing: the default policy freezes the whole encoder; only the head is trained."""

from ..spec import Spec
from . import Method


class HeadOnly(Method):
    """A frozen encoder, unless the freezing policy says otherwise."""

    grouped = stateless = True

    @classmethod
    def lowest_trained(cls, spec: Spec) -> int | None:
        """None if the policy trains no layer."""
        return super().lowest_trained(spec) if cls.policy_trains(spec) else None


METHOD = HeadOnly
