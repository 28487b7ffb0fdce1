"""Architectures of the papers, with recipes from which `build` rebuilds them."""

from collections.abc import Callable, Mapping, Sequence
from inspect import signature
from typing import Any

from torch import nn

from flatprobe.models.all_convolutional import all_cnn_c, all_convolutional
from flatprobe.models.cnn import sokolic_cnn, thumwanit_cnn
from flatprobe.models.mlp import mlp
from flatprobe.models.normalised import Normalise, Normalised
from flatprobe.models.polynomial import PolynomialReLU
from flatprobe.models.preactivation import resnet18, wide_resnet
from flatprobe.models.recipes import Recipe, recipe_of
from flatprobe.models.resnet import Residual, resnet
from flatprobe.models.scaling import scaled
from flatprobe.models.small import small_alexnet, small_inception
from flatprobe.models.unit_rows import normalize_rows, unit_rows
from flatprobe.utils.arguments import is_whole

__all__ = [
    "NETWORKS",
    "Normalise",
    "Normalised",
    "PolynomialReLU",
    "Recipe",
    "Residual",
    "all_cnn_c",
    "all_convolutional",
    "build",
    "layer_count",
    "mlp",
    "recipe_of",
    "resnet",
    "resnet18",
    "scaled",
    "small_alexnet",
    "small_inception",
    "sokolic_cnn",
    "thumwanit_cnn",
    "unit_rows",
    "wide_resnet",
]

NETWORKS: dict[str, Callable[..., nn.Sequential]] = {
    "mlp": mlp,
    "sokolic_cnn": sokolic_cnn,
    "thumwanit_cnn": thumwanit_cnn,
    "resnet": resnet,
    "all_convolutional": all_convolutional,
    "all_cnn_c": all_cnn_c,
    "small_alexnet": small_alexnet,
    "small_inception": small_inception,
    "wide_resnet": wide_resnet,
    "resnet18": resnet18,
}


def _unit_rows(network: nn.Sequential, arguments: Mapping[str, Any]) -> nn.Sequential:
    normalize_rows(network, arguments["layers"])
    return network


# Recipes that hold the recipe of another network: the function that wraps it, and their form.
_WRAPPERS: dict[str, tuple[Callable[[nn.Sequential, Mapping[str, Any]], nn.Sequential], str]] = {
    "normalised": (lambda network, own: Normalised(network, own["mean"], own["std"]), "normalised(network, mean, std)"),
    "unit_rows": (_unit_rows, "unit_rows(network, layers)"),
}


def build(recipe: Mapping[str, object]) -> nn.Sequential:
    """The untrained network of a recipe.

    Args:
        recipe: `{"name": ..., "arguments": {...}}`, as `network.recipe` of every network built here.

    Returns:
        A new network in training mode.

    Raises:
        ValueError: if the recipe has another form, names an unknown network or argument, or is too large.

    >>> build(mlp((4,), widths=(3,)).recipe)[1]
    Linear(in_features=4, out_features=3, bias=True)
    """
    name, arguments = recipe.get("name"), recipe.get("arguments")
    if not isinstance(name, str) or not isinstance(arguments, Mapping):
        msg = (
            f'the recipe is {dict(recipe)}; expected {{"name": ..., "arguments": {{...}}}}, as network.recipe holds it'
        )
        raise ValueError(msg)
    try:
        if name in _WRAPPERS:
            inner = arguments["network"]
            return _WRAPPERS[name][0](build(inner if isinstance(inner, Mapping) else {}), arguments)
        if name not in NETWORKS:
            msg = f"the network {name!r} is unknown; expected one of {', '.join([*NETWORKS, *_WRAPPERS])}"
            raise ValueError(msg)
        _check_whole(NETWORKS[name], arguments)
        return NETWORKS[name](**arguments)
    except (TypeError, KeyError, RuntimeError, MemoryError, OverflowError) as error:
        form = f"{name}{signature(NETWORKS[name])}" if name in NETWORKS else _WRAPPERS[name][1]
        msg = (
            f"the recipe of {name!r} does not fit its builder ({str(error)[:200]}); expected what network.recipe "
            f"holds, for {form.replace('collections.abc.', '')}"
        )
        raise ValueError(msg) from error


def layer_count(recipe: Mapping[str, object]) -> int:
    """Lower bound of the number of layers with weights in a recipe."""
    arguments = recipe.get("arguments")
    if not isinstance(arguments, Mapping):
        return 0
    if isinstance(inner := arguments.get("network"), Mapping):
        return layer_count(inner)
    widths, counts = arguments.get("widths"), [arguments.get(name) for name in ("depth", "layers")]
    return max(len(widths) if isinstance(widths, list) else 0, *(k if isinstance(k, int) else 0 for k in counts))


def _check_whole(builder: Callable[..., nn.Sequential], arguments: Mapping[str, object]) -> None:
    """Check a builder's whole numbers; 3.5 would be rounded, a string split.

    Raises:
        TypeError: if an argument is not whole.
    """
    for name, parameter in signature(builder).parameters.items():
        value = arguments.get(name, parameter.default)
        several = parameter.annotation == Sequence[int]
        if several and not (isinstance(value, Sequence) and not isinstance(value, str) and all(map(is_whole, value))):
            msg = f"{name} is {value!r}; expected whole numbers in a list"
            raise TypeError(msg)
        if parameter.annotation is int and not is_whole(value):
            msg = f"{name} is {value!r}; expected a whole number"
            raise TypeError(msg)


def __dir__() -> list[str]:
    return sorted(__all__)
