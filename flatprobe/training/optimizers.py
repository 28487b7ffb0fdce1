"""Registry of optimizers, and their state as named tensors."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.optim import SGD, Adam, Optimizer

from flatprobe.training.langevin import STEP, add_noise
from flatprobe.utils.arguments import Named, chosen

_PREFIX = "optimizer."


class Common(NamedTuple):
    """Arguments of every optimizer."""

    rate: float
    momentum: float
    weight_decay: float
    seed: int


def _sgd(parameters: list[nn.Parameter], common: Common) -> Optimizer:
    return SGD(parameters, lr=common.rate, momentum=common.momentum, weight_decay=common.weight_decay)


def _nesterov(parameters: list[nn.Parameter], common: Common) -> Optimizer:
    return SGD(parameters, common.rate, common.momentum, weight_decay=common.weight_decay, nesterov=True)


def _adam(parameters: list[nn.Parameter], common: Common) -> Optimizer:
    return Adam(parameters, lr=common.rate, betas=(common.momentum, 0.999), weight_decay=common.weight_decay)


def _sgdl(parameters: list[nn.Parameter], common: Common, *, noise: float, decay: float = 0.5) -> Optimizer:
    # The default is the power of Gelfand and Mitter (1991), up to their iterated logarithm; T3 gives none.
    return add_noise(_sgd(parameters, common), seed=common.seed, noise=noise, decay=decay)


OPTIMIZERS: dict[str, Callable[..., Optimizer]] = {"sgd": _sgd, "nesterov": _nesterov, "adam": _adam, "sgdl": _sgdl}


def check_optimizer(optimizer: Named | Any, *, momentum: float) -> None:
    """Check the optimizer's name, its arguments and the momentum.

    Raises:
        ValueError: for an unknown name, unfit arguments, or Nesterov without momentum.
    """
    function, arguments = chosen("optimizer", optimizer, OPTIMIZERS)
    for name, value in arguments.items():
        if value < 0:
            msg = f"{name} of the optimizer {optimizer!r} is {value}; expected at least 0"
            raise ValueError(msg)
    if function is _nesterov and momentum == 0:
        msg = "momentum is 0 with the optimizer 'nesterov'; expected a positive one: without it, take 'sgd'"
        raise ValueError(msg)


def build_optimizer(
    name: Named,
    parameters: Iterable[nn.Parameter],
    *,
    learning_rate: float,
    momentum: float = 0.9,
    weight_decay: float = 0.0,
    seed: int = 0,
) -> Optimizer:
    """SGD: v <- m v + g, w <- w - r v, with g the gradient plus d w.

    Nesterov: w <- w - r (g + m v), with the v just updated. Adam (Kingma and Ba 2015): w <- w - r m_hat /
    (sqrt(v_hat) + 1e-8). SGDL (T3 eq. 5): SGD's step, then noise (`flatprobe.training.langevin`).

    Args:
        name: `"sgd"`, `"nesterov"`, `"adam"`, or `{"name": "sgdl", "noise": s, "decay": a}`.
        parameters: those that require no gradient do not change.
        learning_rate: r.
        momentum: m of SGD, Nesterov and SGDL (T3 eq. 5 has 0), beta_1 of Adam, whose beta_2 is 0.999; 0.9 is S17's
            (section VI-B2) and Adam's own.
        weight_decay: d, added to the gradient as d w, the gradient of d/2 ||w||^2.
        seed: of SGDL's noise.

    Returns:
        The optimizer.

    Raises:
        ValueError: for an unknown name or unfit arguments.
        ValueError: if no parameter requires a gradient.
    """
    check_optimizer(name, momentum=momentum)
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    if not trained:
        msg = "no parameter of the network requires a gradient, so there is nothing to train; set requires_grad"
        raise ValueError(msg)
    function, arguments = chosen("optimizer", name, OPTIMIZERS)
    built: Optimizer = function(trained, Common(learning_rate, momentum, weight_decay, seed), **arguments)
    return built


def optimizer_tensors(optimizer: Optimizer) -> dict[str, Tensor]:
    """The optimizer's state by name: `optimizer.<parameter's position>.<word>`."""
    return {
        f"{_PREFIX}{index}.{word}": value
        for index, parameter in enumerate(_parameters(optimizer))
        for word, value in optimizer.state[parameter].items()
        if isinstance(value, Tensor)
    }


def restore_optimizer(optimizer: Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Give a new optimizer the state that `optimizer_tensors` returned; other names are ignored."""
    parameters = _parameters(optimizer)
    for name, value in tensors.items():
        if name.startswith(_PREFIX):
            index, word = name.removeprefix(_PREFIX).split(".")
            parameter = parameters[int(index)]
            # Step counts stay on the CPU in their own dtype, whatever the parameter is, even where it is a scalar too.
            like = torch.empty_like(value) if word == STEP else parameter.detach()
            optimizer.state[parameter][word] = torch.empty_like(like).copy_(value)


def _parameters(optimizer: Optimizer) -> list[nn.Parameter]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]
