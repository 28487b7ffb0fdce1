"""The error of a training whose numbers are not finite any more."""

CURE = (
    "expected finite numbers: lower the learning rate or the strength of the penalties, or look for inputs that are "
    "not normalised"
)


class DivergedError(RuntimeError):
    """A term of what is minimised, or a weight, is not finite."""
