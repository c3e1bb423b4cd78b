"""Linear probing: the default policy freezes the whole encoder; only the head is trained."""

from ..errors import SpecError
from ..spec import Spec
from . import Method


class HeadOnly(Method):
    """A frozen encoder, unless the freezing policy says otherwise."""

    grouped = stateless = True

    @classmethod
    def check(cls, spec: Spec) -> None:
        """See ``Method.check``."""
        super().check(spec)
        if cls.policy_trains(spec):
            return
        for path, value in (
            ("init_from", spec.init_from),
            ("train.gradient_checkpointing", spec.train.gradient_checkpointing),
        ):
            if value:
                raise SpecError(path, value, "has no effect: only the head is trained")

    @classmethod
    def lowest_trained(cls, spec: Spec) -> int | None:
        """None if the policy trains no layer."""
        return super().lowest_trained(spec) if cls.policy_trains(spec) else None


METHOD = HeadOnly
