"""The papers' networks as `nn.Sequential`s that carry the recipe from which `build` makes them again."""

from collections.abc import Callable, Mapping

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
    "mlp",
    "recipe_of",
    "resnet",
    "resnet18",
    "scaled",
    "small_alexnet",
    "small_inception",
    "sokolic_cnn",
    "thumwanit_cnn",
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


def build(recipe: Mapping[str, object]) -> nn.Sequential:
    """The network of a recipe, with its initial (untrained) weights.

    Args:
        recipe: `{"name": ..., "arguments": {...}}`, as `network.recipe` of every network built here.

    Returns:
        A new network in training mode.

    Raises:
        ValueError: if the recipe is not of that form or names an unknown network or argument.

    >>> build(mlp((4,), widths=(3,)).recipe)[1]
    Linear(in_features=4, out_features=3, bias=True)
    """
    name, arguments = recipe.get("name"), recipe.get("arguments")
    if not isinstance(name, str) or not isinstance(arguments, Mapping):
        msg = (
            f'the recipe is {dict(recipe)}; expected {{"name": ..., "arguments": {{...}}}}, as network.recipe holds it'
        )
        raise ValueError(msg)
    if name == "normalised":
        return Normalised(build(arguments["network"]), arguments["mean"], arguments["std"])
    if name not in NETWORKS:
        msg = f"the network {name!r} is unknown; expected one of {', '.join(NETWORKS)}, or normalised"
        raise ValueError(msg)
    try:
        return NETWORKS[name](**arguments)
    except TypeError as error:
        msg = f"the recipe of {name!r} does not fit its builder: {error}; expected what network.recipe holds"
        raise ValueError(msg) from error
