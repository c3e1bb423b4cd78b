"""Linear probing: the default policy freezes the whole encoder, so only the head is trained."""

from ..spec import Spec
from . import Method


class HeadOnly(Method):
    """A frozen encoder, unless the freezing policy says otherwise."""

    grouped = stateless = True

    @classmethod
    def lowest_trained(cls, spec: Spec) -> int | None:
        """No layer, where the policy trains none."""
        return super().lowest_trained(spec) if cls.policy_trains(spec) else None


METHOD = HeadOnly
