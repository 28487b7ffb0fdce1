"""Norms of the weights: of all of them, of each unit and each layer, of the paths, and their products."""

import copy
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

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
from flatprobe.utils.arguments import is_whole, positive, scalar
from flatprobe.utils.results import Result, settings

if TYPE_CHECKING:
    import pandas

# Columns of `WeightNorms.layers`.
QUANTITIES = ("spectral", "frobenius", "stable_rank", "reshaped_spectral", "reshaped_frobenius")


@dataclass(frozen=True, kw_only=True, repr=False)
class WeightNorms(Result):
    """Norms of a network's weights.

    Attributes:
        l2: ||w||_2 over all weights: the parameters, and where a layer computes a weight from its parameters (weight
            and spectral normalisation, other parametrizations, pruning masks) the weight that it applies.
        distance: ||w - w_0||_2 from the initial weights, likewise; NaN where these were not given.
        path: the path norm; NaN where it was not asked for.
        names: the layers, linear and convolutional, in order of application; `left_out` names what else has weights.
        layers: (layers, quantities) spectral and Frobenius norm of the layer as the operator that it is, BatchNorm
            folded in; its stable rank ||.||_F^2 / ||.||_2^2; the two norms of the kernel reshaped to (out, rest), which
            others report.
        fan_in: of each layer, (units,) the l1 norm of each unit's incoming weights, bias left out (T3 Fig. 16),
            BatchNorm folded in.
    """

    l2: float
    distance: float
    path: float
    names: tuple[str, ...]
    layers: Float64[Tensor, "layers quantities"]
    fan_in: tuple[Float64[Tensor, "_"], ...]

    @property
    def left_out(self) -> list[str]:
        """Layers and weights of two or more axes that the network applies and `layers` does not list."""
        found: list[str] = self.settings["subject"].get("left_out", [])
        return found

    def of(self, quantity: str) -> Float64[Tensor, " layers"]:
        """One of `QUANTITIES`, for each layer."""
        return self.layers[:, QUANTITIES.index(quantity)]

    def product(self, quantity: str = "spectral") -> float:
        """The product over the layers of one of `QUANTITIES`.

        It bounds the network's Lipschitz constant for a chain of these layers and activations that are no steeper than
        1; with branches, or with layers that are left out, it is no bound, and `flatprobe.graph.lipschitz.propagate`
        is.
        """
        return float(self.of(quantity).prod())

    def normalised(self, margin: float) -> dict[str, float]:
        """The products of norms and the path norm, each divided by a margin: what does not grow with the logits' scale.

        Args:
            margin: a functional margin in the logits' units, such as the tenth percentile over the training set.

        Returns:
            The quotients by name.

        Raises:
            ValueError: if the margin is not positive.
        """
        positive(margin=margin)
        return {
            "path": self.path / margin,
            **{f"product of {name}": self.product(name) / margin for name in ("spectral", "frobenius")},
        }

    def summary(self) -> dict[str, float]:
        """l2 first, then distance, path norm, products and the largest fan-in."""
        return {
            "l2": self.l2,
            "distance": self.distance,
            "path": self.path,
            **{f"product_{name}": self.product(name) for name in ("spectral", "frobenius", "reshaped_spectral")},
            "mean_stable_rank": float(self.of("stable_rank").mean()),
            "max_fan_in_l1": max(float(units.max()) for units in self.fan_in),
        }

    def to_frame(self) -> "pandas.DataFrame":
        """One row a number: layer ("" for the network), quantity, unit (-1 for the layer), value."""
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
    input_shape: int | Sequence[int] | LabelledData | Any,
    *,
    initial: nn.Module | Mapping[str, Tensor] | Any = None,
    path: bool = True,
) -> WeightNorms:
    """||w||, ||w - w_0||, fan-in l1 a unit, path norm, and of each layer the norms of the operator that it is.

    The network is traced once (`flatprobe.graph`), so a layer is found however it is called, in the order of
    application, at its real input size, stride, padding, dilation and groups; a layer applied twice is listed twice.
    Each operator norm is an estimate to 1e-6 relative (all singular values, or Lanczos); `geometric_margins` takes
    proven bounds instead. The kernel reshaped to (out, rest) stands beside, since its norm is what spectral
    normalisation and others report: for a 3 x 3 convolution of stride 1 it may be three times smaller.

    Args:
        model: a classifier in eval mode; never changed.
        input_shape: of one sample, such as `data.input_shape`; or the data. None for a network that does not take one
            floating tensor (integers, several inputs): it is not traced then, and its `nn.Linear` layers are listed in
            their order as modules, without the path norm (`path=False`).
        initial: the weights before training, a module or a state_dict, for the distance.
        path: whether to compute the path norm, which needs every operation of the network to be known; True.

    Returns:
        `WeightNorms`. A warning names what the network holds without having registered it (layers in a plain list), and
        what it applies that is neither linear nor a zero-padded convolution (`left_out`): other weights, padding by
        other numbers, a layer whose own forward or hooks do more.

    Raises:
        ValueError: for a network in training mode, with weights that are not finite, that cannot be traced, that has no
            linear or convolutional layer, whose initial weights are not those of this network, or that has an operation
            without a known path norm (named; `path=False` leaves the path norm out).
        TypeError: if the initial weights are neither a module nor a state_dict, or the shape is none.

    Source: SPEC section 2 (norms of the weights); T3 eq. 34 and Fig. 16; Sedghi, Gupta, Long 2019 for operator norms.

    >>> model = nn.Linear(2, 2, bias=False).eval()
    >>> _ = model.weight.data.copy_(torch.tensor([[3.0, 0.0], [0.0, -4.0]]))
    >>> norms = weight_norms(model, (2,))
    >>> norms.l2, norms.path, norms.product(), norms.fan_in[0].tolist()
    (5.0, 5.0, 4.0, [3.0, 4.0])
    """
    network, shape = Network(model), _shape(input_shape)
    warn_of_unregistered(network.name, network.slots.unregistered, "the norms of all weights do not count them")
    graph = None if shape is None else fold(trace(network.module, shape))
    if path and graph is None:
        msg = "the path norm needs the network's input_shape, which is None; expected a shape, or path=False"
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
    """There are layers with norms, and a warning names those without.

    Raises:
        ValueError: if there is none.
    """
    others = ", ".join(layers.left_out)
    if not layers.names:
        also = f" but {others}" if others else ""
        msg = f"{name} applies no linear or zero-padded convolutional layer{also}; expected one to take norms of"
        raise ValueError(msg)
    if others:
        msg = (
            f"{name} applies {others}, whose norms are not known: they are left out of the layers and of their "
            "products (`left_out` of the result); known are linear layers and zero-padded convolutions that return "
            "what torch's own return"
        )
        warnings.warn(msg, UserWarning, stacklevel=4)  # past the decorator


def _shape(given: object) -> tuple[int, ...] | None:
    if isinstance(given, LabelledData):
        return given.input_shape
    if given is None or is_whole(given):
        return None if given is None else (int(scalar(given)),)
    if not isinstance(given, Sequence) or isinstance(given, str) or not all(map(is_whole, given)):
        msg = f"input_shape is {given!r}; expected the shape of one sample, whole numbers: data.input_shape"
        raise TypeError(msg)
    return tuple(int(scalar(size)) for size in given)


def _distance(network: Network, initial: object) -> float:
    """From the initial weights; both as they are applied.

    Raises:
        TypeError: if these are neither a module nor a state_dict.
        ValueError: if they are not those of this network.
    """
    if initial is None:
        return float("nan")
    if not isinstance(initial, nn.Module | Mapping):
        msg = (
            f"the initial weights are {initial!r}; expected a module or a state_dict: fp.load_checkpoint(path, model) "
            "reads one"
        )
        raise TypeError(msg)
    given = dict(initial.named_parameters()) if isinstance(initial, nn.Module) else initial
    start = weights.strip_prefixes(given, list(network.weights))
    for name, value in network.weights.items():
        if name not in start or start[name].shape != value.shape:
            found = f"has shape {tuple(start[name].shape)}" if name in start else "is missing"
            msg = (
                f"the initial weights are not those of this network: {name!r} {found}; expected shape "
                f"{tuple(value.shape)}"
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
