"""What all generators share: the sizes of the splits, and the share of wrong labels."""

from ...spec import DataSpec, TaskSpec

# Share of wrong class labels; for regression, the noise's standard deviation as a share of the
# range.
NOISE = 0.05


def sizes(task: TaskSpec, data: DataSpec) -> dict[str, int]:
    """Rows of each split, in the order in which they are generated.

    Splits to score come first, so that they do not depend on ``data.toy_train``.
    """
    scored = dict.fromkeys([*task.validation, *task.optional], data.toy_validation)
    return {**scored, "train": data.toy_train}
