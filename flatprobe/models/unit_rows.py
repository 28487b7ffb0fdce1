"""Weight normalization as a part of the network: rows of unit length, differentiated through."""

from collections.abc import Sequence
from fnmatch import fnmatchcase

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized, register_parametrization

from flatprobe.models.recipes import recipe_of
from flatprobe.network.copies import structural_copy

_LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)


class UnitLength(nn.Module):
    """W = diag(V V^T)^(-1/2) V: the rows of V, divided by their l2 norms.

    V is reshaped to (out, rest). A row of zeros stays, since it has no direction.

    >>> UnitLength()(torch.tensor([[3.0, 4.0], [0.0, 0.0]]))
    tensor([[0.6000, 0.8000],
            [0.0000, 0.0000]])
    """

    def forward(self, V: Tensor) -> Tensor:
        """The normalized weight, in the shape of V."""
        rows = V.flatten(1).to(torch.promote_types(V.dtype, torch.float32))  # Squares of halves leave their range.
        squares = rows.square().sum(1, keepdim=True)
        # The square root of a row of zeros would have no derivative.
        return (rows / torch.where(squares > 0, squares, 1).sqrt()).to(V.dtype).view_as(V)


def unit_rows(network: nn.Module, layers: str | Sequence[str] | None = None) -> nn.Module:
    """A copy with weight normalization: W = diag(V V^T)^(-1/2) V, rows of length 1, without a gain.

    V takes the place of the weight as the trained parameter, and begins with its values. It is named
    `<layer>.parametrizations.weight.original` (torch's parametrizations). W is computed in each forward pass, so the
    gradient passes through the division: a row v receives (1 - w w^T) g / ||v||, where g is the gradient with respect
    to w. That is tangential, so ||v|| grows with each plain gradient step and slows later ones down.
    `fp.constraints.UnitRows` is another method: it projects the weights after each step. The two trainings agree to
    first order in the learning rate only.

    A row of a convolution is a filter: the kernel reshaped to (out, in / groups * taps). Biases do not change.

    Consequences for measurements:

    - The network's function does not depend on the lengths ||v||. `fp.models.scaled` and weight decay on V therefore
      change only the speed of the training.
    - Distances between weights (`flatness_radius`, `worst_case_sharpness`, Hessians) are in the units of V: with all
      rows of V twice as long, an isotropic radius over these weights is twice as large. Compare networks with rows of
      one length: `layer.parametrizations.weight.original.copy_(layer.weight)` under `torch.no_grad()` sets V to W and
      changes no output.
    - Quantities of the function, and `weight_norms`, are those of W.

    `pickle` and `torch.save` of the whole module are refused by torch; run folders and state_dicts work.

    Args:
        network: any module; it is not changed.
        layers: names or patterns (`*`, `?`, `[...]`) of the layers, as in `named_modules()`, such as `"linear"`. None
            (default): every `nn.Linear` and `nn.Conv1d` to `nn.Conv3d`; other layers keep their weights.

    Returns:
        The copy, in the same mode. With a recipe if the network has one, so that `load_checkpoint` rebuilds it.

    Raises:
        ValueError: if a name or pattern matches no linear layer or convolution, or the network has none.
        ValueError: for a layer whose weight is computed from other parameters already.

    Source: Sokolić et al. (2017), eq. 45, with a square root and for rows (docs, Definitions) [S17]; Salimans and
    Kingma (2016), "Weight normalization", without the gain.

    >>> network = unit_rows(nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 2)), layers="0")
    >>> network[0].weight.norm(dim=1).allclose(torch.ones(3)), [name for name, _ in network.named_parameters()][1]
    (True, '0.parametrizations.weight.original')
    """
    result = structural_copy(network)
    normalize_rows(result, layers)
    return result


def normalize_rows(network: nn.Module, layers: str | Sequence[str] | None) -> None:
    """Weight normalization of the network itself, and of its recipe; see `unit_rows`.

    Raises:
        ValueError: as `unit_rows`.
    """
    patterns = [layers] if isinstance(layers, str) else None if layers is None else list(layers)
    found = {name: layer for name, layer in network.named_modules() if isinstance(layer, _LAYERS)}
    for pattern in ["*"] if patterns is None else patterns:
        if not any(fnmatchcase(name, pattern) for name in found):
            known = ", ".join(found) or "none"
            msg = f"layers must match linear layers or convolutions of the network ({known}), got {pattern!r}"
            raise ValueError(msg)
    chosen = {
        name: layer
        for name, layer in found.items()
        if patterns is None or any(fnmatchcase(name, pattern) for pattern in patterns)
    }
    for name, layer in chosen.items():
        if is_parametrized(layer) or not isinstance(layer._parameters.get("weight"), nn.Parameter):  # noqa: SLF001
            msg = f"the weight of layer {name!r} must be a parameter, got a computed weight. Leave the layer out"
            raise ValueError(msg)
    for layer in chosen.values():
        mode = layer.training
        register_parametrization(layer, "weight", UnitLength()).train(mode)
    inner = recipe_of(network)
    if inner is not None:
        recipe = {"name": "unit_rows", "arguments": {"network": inner, "layers": patterns}}
        network.recipe = recipe  # type: ignore[assignment]
