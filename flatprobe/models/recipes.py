"""Recipes of networks as plain JSON, from which a run folder rebuilds them."""

from collections import OrderedDict
from collections.abc import Callable, Sequence

from torch import nn

from flatprobe.utils.seeding import seeded

Recipe = dict[str, object]
Modules = Sequence[tuple[str, nn.Module]]


def assemble(name: str, seed: int, layers: Callable[[], Modules], arguments: dict[str, object]) -> nn.Sequential:
    """The layers as one `nn.Sequential` in training mode, with its recipe.

    Args:
        name: name of the builder in `NETWORKS`.
        seed: seed of the initial weights; the global random state is restored.
        layers: function that makes the named layers with torch's default initial weights.
        arguments: arguments of the builder other than the seed, as JSON.

    Returns:
        The network, with the attribute `recipe`.
    """
    with seeded(seed, "initial weights", name):
        network = nn.Sequential(OrderedDict(layers()))
    network.recipe = {"name": name, "arguments": {**arguments, "seed": seed}}  # type: ignore[assignment]
    return network


def recipe_of(network: nn.Module) -> Recipe | None:
    """The recipe of a network that flatprobe built, None for any other module.

    >>> recipe_of(nn.Linear(2, 3)) is None
    True
    """
    recipe = getattr(network, "recipe", None)
    return recipe if isinstance(recipe, dict) else None


def image_shape(input_shape: Sequence[int], name: str, smallest: int) -> tuple[int, int, int]:
    """The (channels, height, width) of a convolutional network's inputs, checked.

    Raises:
        ValueError: if the shape is not that of an image, or if the image is too small for the network.
    """
    shape = tuple(int(length) for length in input_shape)
    if len(shape) != 3 or min(shape) < 1:
        msg = f"input_shape is {shape}; {name} expects (channels, height, width), all at least 1"
        raise ValueError(msg)
    channels, height, width = shape
    if min(height, width) < smallest:
        msg = (
            f"an input of {height} x {width} pixels is too small for {name}: nothing is left after its last "
            f"layer of filters; expected at least {smallest} x {smallest}, or another network (an MLP fits)"
        )
        raise ValueError(msg)
    return channels, height, width


def class_count(classes: int) -> int:
    """The number of outputs, checked.

    Raises:
        ValueError: if there are fewer than two.
    """
    if classes < 2:
        msg = f"classes is {classes}; expected at least 2"
        raise ValueError(msg)
    return int(classes)


def dropout_rate(dropout: float) -> float:
    """The probability with which dropout sets a unit to zero, checked.

    Raises:
        ValueError: if it is not in [0, 1).
    """
    if not 0 <= dropout < 1:
        msg = f"dropout is {dropout}; expected a probability, at least 0 and below 1"
        raise ValueError(msg)
    return float(dropout)


def dropout_layers(name: str, dropout: float) -> Modules:
    """A dropout layer, or no layer for a rate of 0."""
    return [(name, nn.Dropout(dropout))] if dropout else []


def add_dropout(arguments: dict[str, object], dropout: float) -> dict[str, object]:
    """Arguments of a recipe, with the dropout unless it is 0."""
    return {**arguments, "dropout": dropout} if dropout else arguments
