"""Error of a training whose numbers are not finite."""

FIX = (
    "expected finite numbers: lower the learning rate or the strength of the penalties, or look for inputs that are "
    "not normalized"
)


class DivergedError(RuntimeError):
    """A term of the objective, or a weight, is not finite.

    `train` and `train_many` raise it. The message names the term, the step and the epoch. A run folder keeps the
    weights of the last complete epoch.
    """
