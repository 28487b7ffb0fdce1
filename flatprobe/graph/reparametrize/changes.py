"""Changes of weights that keep the function of a network, or its decisions."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from flatprobe.graph.reparametrize.chains import Chain, Layout
from flatprobe.network.copies import structural_copy
from flatprobe.utils import rng
from flatprobe.utils.arguments import one_of


@dataclass(frozen=True)
class Change:
    """A change of the weights.

    Attributes:
        keeps: the invariant, `"function"` or `"decisions"`.
        places: the layers whose units the change scales or permutes.
        candidates: the layers that the change would affect if all layers could be followed.
        apply: (network, layout, factor, seed) -> None, the change in place.
        missing: the reason why the change does not apply to a network.
    """

    keeps: str
    places: Callable[[Layout], tuple[str, ...]]
    candidates: Callable[[Layout], tuple[str, ...]]
    apply: Callable[[nn.Module, Layout, float, int], None]
    missing: str


def reparametrize(module: nn.Module, found: Layout, change: str, *, factor: float = 4.0, seed: int = 0) -> nn.Module:
    """Copy of a network with other weights w' and the same function or decisions.

    f_w'(x) = f_w(x), or factor f_w(x) for `logit_scale`:

    - `rescaling`: the pre-activation of every second unit times `factor` (incoming weights and bias, or weight and bias
      of its BatchNorm), and its outgoing weights divided by `factor`; ReLU, leaky ReLU, pools and reshapes between.
    - `batch_norm`: incoming weights and bias of every second unit times `factor`, before a BatchNorm that absorbs it:
      running mean times `factor`, running_var' = factor^2 (running_var + eps) - eps, so that eps changes nothing.
    - `permutation`: the units of a layer in another order: rows and biases, entries of BatchNorm, outgoing columns.
    - `logit_scale`: weights and bias of the last layer times `factor`.

    Only every second unit is scaled, since normalizations by the norm of a layer follow a factor of the whole layer.

    Args:
        module: a classifier in eval mode; never changed.
        found: the `layout` of the classifier.
        change: one of `CHANGES`.
        factor: a number above 1, so that no variance becomes negative; the default, a power of two, multiplies exactly
            in floating point.
        seed: the seed of the order of the units.

    Raises:
        ValueError: for an unknown change, or a factor that is not above 1.
        ValueError: for a network that the change does not apply to.

    Source: Dinh et al. (2017), "Sharp minima can generalize for deep nets"; Poggio et al. (2017), section 1.1 [T3].

    >>> from flatprobe.graph.reparametrize import layout
    >>> network = nn.Sequential(nn.Linear(2, 1, bias=False), nn.ReLU(), nn.Linear(1, 2, bias=False)).eval()
    >>> _ = network[0].weight.data.fill_(1), network[2].weight.data.fill_(1)
    >>> reparametrize(network, layout(network, (2,)), "rescaling")[2].weight.flatten().tolist()
    [0.25, 0.25]
    """
    one_of("change", change, CHANGES)
    if not 1 < factor < float("inf"):
        msg = f"factor must be a finite number above 1, got {factor}"
        raise ValueError(msg)
    if not CHANGES[change].places(found):
        msg = f"{change} does not apply to {type(module).__name__}: {CHANGES[change].missing}"
        raise ValueError(msg)
    with torch.inference_mode(mode=False), torch.no_grad():
        result = structural_copy(module)
        CHANGES[change].apply(result, found, factor, seed)
    return result


def _rescale(network: nn.Module, found: Layout, factor: float, _seed: int) -> None:
    for chain in found.chains:
        if chain.scaled is not None:
            target, columns = _target(network, chain)
            _scale(network.get_submodule(chain.scaled), slice(0, None, 2), factor)
            target[:, columns[::2].flatten().to(target.device)] /= factor


def _absorb(network: nn.Module, found: Layout, factor: float, _seed: int) -> None:
    for chain in found.chains:
        if chain.absorbing is not None:
            _scale(network.get_submodule(chain.layer), slice(0, None, 2), factor)
            norm = network.get_submodule(chain.absorbing)
            mean, variance, eps = _statistics(norm)
            mean[::2] *= factor
            variance[::2] = (factor**2 * (variance[::2].double() + eps) - eps).to(variance)


def _permute(network: nn.Module, found: Layout, _factor: float, seed: int) -> None:
    for place, chain in enumerate(found.chains):
        if chain.target is not None:
            order = rng.permutation(chain.units, seed, "permutation", place)
            for name in (chain.layer, *chain.norms):
                layer = network.get_submodule(name)
                for value in (*layer.parameters(recurse=False), *layer.buffers(recurse=False)):
                    if value.ndim:  # Excludes the number of batches of BatchNorm.
                        value.copy_(value[order.to(value.device)])
            target, columns = _target(network, chain)
            own, other = (part.flatten().to(target.device) for part in (columns, columns[order]))
            target[:, own] = target[:, other]


def _scale_logits(network: nn.Module, found: Layout, factor: float, _seed: int) -> None:
    _scale(network.get_submodule(str(found.last)), slice(None), factor)


def _scale(layer: nn.Module, units: slice, factor: float) -> None:
    """Multiply weight and bias of the units by the factor."""
    for value in layer.parameters(recurse=False):
        value[units] *= factor


def _target(network: nn.Module, chain: Chain) -> tuple[Tensor, Tensor]:
    assert chain.target is not None
    assert chain.columns is not None
    weight = network.get_submodule(chain.target).weight
    assert isinstance(weight, Tensor)
    return weight, chain.columns


def _statistics(norm: nn.Module) -> tuple[Tensor, Tensor, float]:
    mean, variance, eps = norm.running_mean, norm.running_var, norm.eps
    assert isinstance(mean, Tensor)
    assert isinstance(variance, Tensor)
    assert isinstance(eps, float)
    return mean, variance, eps


CHANGES: dict[str, Change] = {
    "rescaling": Change(
        "function",
        lambda found: tuple(chain.layer for chain in found.chains if chain.scaled is not None),
        lambda found: found.layers,
        _rescale,
        "no layer is followed by ReLU, leaky ReLU or nothing and then, alone, by one more layer",
    ),
    "batch_norm": Change(
        "function",
        lambda found: tuple(chain.absorbing for chain in found.chains if chain.absorbing is not None),
        lambda found: found.norms,
        _absorb,
        "no BatchNorm follows a layer",
    ),
    "permutation": Change(
        "function",
        lambda found: tuple(chain.layer for chain in found.chains if chain.target is not None),
        lambda found: found.layers,
        _permute,
        "no layer's units go to one more layer alone",
    ),
    "logit_scale": Change(
        "decisions",
        lambda found: () if found.last is None else (found.last,),
        lambda found: () if found.last is None else (found.last,),
        _scale_logits,
        "the logits are not the value of one layer with weights of its own",
    ),
}
