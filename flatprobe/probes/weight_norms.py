"""Norms of the weights: in total, per unit, per layer and over paths, with their products."""

import copy
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch
from jaxtyping import Float64
from torch import Tensor, nn

from flatprobe.data import LabelledData
from flatprobe.graph import fold, trace
from flatprobe.graph.layer_norms import Layers, applied_layers, listed_layers
from flatprobe.graph.path_norm import path_norm
from flatprobe.network import weights
from flatprobe.network.contexts import standalone
from flatprobe.network.modules import warn_of_unregistered
from flatprobe.network.network import Network
from flatprobe.network.parametrized import computed_weights, with_computed
from flatprobe.utils.arguments import Checked, is_whole, one_of, positive, scalar
from flatprobe.utils.results import Result, settings

if TYPE_CHECKING:
    import pandas

# Columns of `WeightNorms.layers`.
QUANTITIES = ("spectral", "frobenius", "stable_rank", "reshaped_spectral", "reshaped_frobenius")
Quantity = Checked[Literal["spectral", "frobenius", "stable_rank", "reshaped_spectral", "reshaped_frobenius"]]


@dataclass(frozen=True, kw_only=True, repr=False)
class WeightNorms(Result):
    """Norms of a network's weights.

    Attributes:
        l2: ||w||_2 over all weights. Where a layer computes a weight from its parameters (weight and spectral
            normalization, other parametrizations, pruning masks), the weight that the layer applies.
        distance: ||w - w_0||_2 from the initial weights, likewise; NaN without initial weights.
        path: path norm; NaN with `path=False`.
        names: linear and convolutional layers in order of application; `left_out` names other layers with weights.
        layers: (layers, quantities) spectral and Frobenius norm of the layer as a linear operator with BatchNorm folded
            in, its stable rank ||.||_F^2 / ||.||_2^2, and the two norms of the kernel reshaped to (out, rest).
        fan_in: per layer, (units,) l1 norm of each unit's incoming weights without bias, BatchNorm folded in (T3,
            Fig. 16).
    """

    l2: float
    distance: float
    path: float
    names: tuple[str, ...]
    layers: Float64[Tensor, "layers quantities"]
    fan_in: tuple[Float64[Tensor, "_"], ...]

    @property
    def left_out(self) -> list[str]:
        """Layers and weights of two or more axes that the network applies without an entry in `layers`."""
        found: list[str] = self.settings["subject"].get("left_out", [])
        return found

    def of(self, quantity: Quantity) -> Float64[Tensor, " layers"]:
        """One of `QUANTITIES`, per layer."""
        one_of("quantity", quantity, QUANTITIES)
        return self.layers[:, QUANTITIES.index(quantity)]

    def product(self, quantity: Quantity = "spectral") -> float:
        """The product over the layers of one of `QUANTITIES`.

        For a chain of these layers and activations of slope at most 1, the product bounds the network's Lipschitz
        constant. With branches or left-out layers it does not, but `flatprobe.graph.lipschitz.propagate` does.
        """
        return float(self.of(quantity).prod())

    def normalised(self, margin: float) -> dict[str, float]:
        """Products of norms and path norm over a margin, which do not depend on the scale of the logits.

        Args:
            margin: a functional margin in the logits' units, such as the tenth percentile over the training set.

        Returns:
            Quotients by name.

        Raises:
            ValueError: if the margin is not positive.
        """
        positive(margin=margin)
        return {
            "path": self.path / margin,
            **{f"product of {name}": self.product(name) / margin for name in ("spectral", "frobenius")},
        }

    def summary(self) -> dict[str, float]:
        """l2, distance, path norm, products, mean stable rank and largest fan-in."""
        return {
            "l2": self.l2,
            "distance": self.distance,
            "path": self.path,
            **{f"product_{name}": self.product(name) for name in ("spectral", "frobenius", "reshaped_spectral")},
            "mean_stable_rank": float(self.of("stable_rank").mean()),
            "max_fan_in_l1": max(float(units.max()) for units in self.fan_in),
        }

    def to_frame(self) -> "pandas.DataFrame":
        """One row per number: layer ("" for the network), quantity, unit (-1 for the layer), value."""
        import pandas as pd

        rows: list[tuple[str, str, int, float]] = [
            ("", name, -1, getattr(self, name)) for name in ("l2", "distance", "path")
        ]
        for name, values, units in zip(self.names, self.layers.tolist(), self.fan_in, strict=True):
            rows += [(name, quantity, -1, value) for quantity, value in zip(QUANTITIES, values, strict=True)]
            rows += [(name, "fan_in_l1", unit, value) for unit, value in enumerate(units.tolist())]
        return pd.DataFrame(rows, columns=["layer", "quantity", "unit", "value"])

    @classmethod
    def from_frame(cls, frame: "pandas.DataFrame", settings: dict[str, Any]) -> "WeightNorms":
        """The inverse of `to_frame`."""
        whole = frame[frame["layer"] == ""].set_index("quantity")["value"]
        own = frame[frame["layer"] != ""]
        names = tuple(own["layer"].drop_duplicates())
        table = own[own["unit"] < 0].pivot_table(index="layer", columns="quantity", values="value", dropna=False)
        fan_in = [own[(own["layer"] == name) & (own["unit"] >= 0)]["value"] for name in names]
        return cls(
            **{name: float(whole[name]) for name in ("l2", "distance", "path")},
            names=names,
            layers=torch.from_numpy(table.loc[list(names), list(QUANTITIES)].to_numpy(copy=True)),
            fan_in=tuple(torch.from_numpy(values.to_numpy(copy=True)) for values in fan_in),
            settings=settings,
        )


@standalone
def weight_norms(
    model: nn.Module,
    input_shape: Checked[int | Sequence[int] | LabelledData | None] = ...,  # type: ignore[assignment] # given
    *,
    initial: Checked[nn.Module | Mapping[str, Tensor] | None] = None,
    path: bool = True,
) -> WeightNorms:
    """||w||, ||w - w_0||, l1 fan-in per unit, path norm, and the operator norms of each layer.

    The network is traced once (`flatprobe.graph`). Layers are listed in the order of application, at their actual input
    size, stride, padding, dilation and groups; a layer applied twice is listed twice. Operator norms are estimates to
    1e-6 relative, by all singular values or Lanczos; `geometric_margins` uses proven bounds instead. The norm of the
    kernel reshaped to (out, rest) is given too, since spectral normalization and other tools report it. For a 3 x 3
    convolution of stride 1 it may be three times smaller than the operator norm.

    Args:
        model: a network in eval mode; never changed.
        input_shape: shape of one sample, such as `data.input_shape`, or the data; it must be given. None for a network
            that does not take one floating tensor. Such a network is not traced: its `nn.Linear` layers are listed in
            their order as modules, and the path norm needs `path=False`.
        initial: the weights before training, a module or a state_dict, for the distance.
        path: True (default) computes the path norm, which must be known for every operation of the network.

    Returns:
        `WeightNorms`. Warnings name layers that the network holds without registering them, as in a plain list, and
        those that it applies without known norms (`left_out`): other weights, padding by other numbers, a layer whose
        own forward or hooks do more.

    Raises:
        ValueError: if the network is in training mode, has weights that are not finite, or cannot be traced.
        ValueError: if the network has no linear or convolutional layer, or the initial weights do not fit it.
        ValueError: if an operation has no known path norm; the message names it, and `path=False` omits the path norm.
        TypeError: if the initial weights are neither a module nor a state_dict, or the shape is not given or not one of
            integers.

    Source: Poggio et al. (2017), eq. 34 and Fig. 16 [T3]; Sedghi, Gupta and Long (2019) for operator norms.

    >>> model = nn.Linear(2, 2, bias=False).eval()
    >>> _ = model.weight.data.copy_(torch.tensor([[3.0, 0.0], [0.0, -4.0]]))
    >>> norms = weight_norms(model, (2,))
    >>> norms.l2, norms.path, norms.product(), norms.fan_in[0].tolist()
    (5.0, 5.0, 4.0, [3.0, 4.0])
    """
    network, shape = Network(model), _shape(input_shape)
    warn_of_unregistered(network.name, network.slots.unregistered, "the norms of all weights do not count them")
    graph = None if shape is None else fold(trace(network.module, shape, network.read.output))
    if path and graph is None:
        msg = "input_shape must be a shape for the path norm, got None. Give the shape of one sample, or path=False"
        raise ValueError(msg)
    layers = listed_layers(network.module) if graph is None else applied_layers(network.module, graph)
    distance = _distance(network, initial)
    paths = path_norm(graph) if path and graph is not None else float("nan")
    _check_layers(network.name, layers)
    return WeightNorms(
        l2=weights.norm(with_computed(network.module, network.weights)),
        distance=distance,
        path=paths,
        names=tuple(layers.names),
        layers=torch.tensor(layers.values, dtype=torch.float64, device="cpu"),
        fan_in=tuple(layers.fan_in),
        settings=settings(
            "weight_norms",
            {"network": network.describe(), **({"left_out": layers.left_out} if layers.left_out else {})},
            input_shape=None if shape is None else list(shape),
            path=path,
        ),
    )


def _check_layers(name: str, layers: Layers) -> None:
    """Check that there are layers with known norms, and warn of those without.

    Raises:
        ValueError: if there is no layer with known norms.
    """
    others = ", ".join(layers.left_out)
    if not layers.names:
        msg = f"{name} must apply a linear or zero-padded convolutional layer, got {others or 'none with weights'}"
        raise ValueError(msg)
    if others:
        msg = (
            f"{name} applies {others}, whose norms are not known and are left out of the layers and their products "
            "(`left_out` of the result). Norms are known of linear layers and zero-padded convolutions that compute "
            "what torch's own compute"
        )
        warnings.warn(msg, UserWarning, stacklevel=4)  # past the decorator


def _shape(given: object) -> tuple[int, ...] | None:
    if isinstance(given, LabelledData):
        return given.input_shape
    if given is None or is_whole(given):
        return None if given is None else (int(scalar(given)),)
    if given is ...:
        msg = "input_shape must be the shape of one sample, which the layers' norms need, got none. Pass the data too"
        raise TypeError(msg)
    if not isinstance(given, Sequence) or isinstance(given, str) or not all(map(is_whole, given)):
        msg = f"input_shape must be the shape of one sample, whole numbers, got {given!r}. Take data.input_shape"
        raise TypeError(msg)
    return tuple(int(scalar(size)) for size in given)


def _distance(network: Network, initial: object) -> float:
    """The distance from the initial weights, both as the layers apply them.

    Raises:
        TypeError: if the initial weights are neither a module nor a state_dict.
        ValueError: if the initial weights are not those of this network.
    """
    if initial is None:
        return float("nan")
    if not isinstance(initial, nn.Module | Mapping):
        msg = f"initial must be a module or a state_dict, got {initial!r}. fp.load_checkpoint(path, model) reads one"
        raise TypeError(msg)
    given = dict(initial.named_parameters()) if isinstance(initial, nn.Module) else initial
    start = weights.strip_prefixes(given, list(network.weights))
    for name, value in network.weights.items():
        if name not in start or start[name].shape != value.shape:
            found = f"has shape {tuple(start[name].shape)}" if name in start else "is missing"
            msg = (
                f"initial must hold the weights of this network: {name!r} {found}; expected shape {tuple(value.shape)}"
            )
            raise ValueError(msg)
    own, module = network.weights, network.module
    if computed_weights(module):
        begun = copy.deepcopy(module)
        begun.load_state_dict({name: start[name] for name in own}, strict=False)
        own, start = (
            with_computed(module, own),
            with_computed(begun, {name: start[name] for name in own}),
        )
    return weights.norm(
        {name: value.double() - start[name].detach().to(value.device).double() for name, value in own.items()}
    )
