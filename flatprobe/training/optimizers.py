"""Optimizers by name, and their state as named tensors."""

from collections.abc import Callable, Iterable, Mapping

import torch
from torch import Tensor, nn
from torch.optim import SGD, Adam, Optimizer

from flatprobe.checks import one_of

_PREFIX = "optimizer."


def _sgd(parameters: list[nn.Parameter], rate: float, momentum: float, decay: float) -> Optimizer:
    return SGD(parameters, lr=rate, momentum=momentum, weight_decay=decay)


def _adam(parameters: list[nn.Parameter], rate: float, momentum: float, decay: float) -> Optimizer:
    return Adam(parameters, lr=rate, betas=(momentum, 0.999), weight_decay=decay)


OPTIMIZERS: dict[str, Callable[[list[nn.Parameter], float, float, float], Optimizer]] = {
    "sgd": _sgd,
    "adam": _adam,
}


def make_optimizer(
    name: str,
    parameters: Iterable[nn.Parameter],
    *,
    learning_rate: float,
    momentum: float = 0.9,
    weight_decay: float = 0.0,
) -> Optimizer:
    """SGD: v <- m v + g + d w, w <- w - r v. Adam (Kingma and Ba 2015): w <- w - r m_hat / (sqrt(v_hat) + 1e-8).

    Args:
        name: `"sgd"` or `"adam"`.
        parameters: those that require no gradient are left alone.
        learning_rate: r.
        momentum: m of SGD, beta_1 of Adam, whose beta_2 is 0.999; 0.9 is S17's (section VI-B2) and Adam's own.
        weight_decay: d, added to the gradient as d w by both: the gradient of d/2 ||w||^2.

    Returns:
        The optimizer.

    Raises:
        ValueError: if no parameter requires a gradient. An unknown name is one too.
    """
    one_of("optimizer", name, OPTIMIZERS)
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    if not trained:
        msg = "no parameter of the network requires a gradient, so there is nothing to train; set requires_grad"
        raise ValueError(msg)
    return OPTIMIZERS[name](trained, learning_rate, momentum, weight_decay)


def optimizer_tensors(optimizer: Optimizer) -> dict[str, Tensor]:
    """The optimizer's state by name: `optimizer.<parameter's position>.<word>`."""
    return {
        f"{_PREFIX}{index}.{word}": value
        for index, parameter in enumerate(_parameters(optimizer))
        for word, value in optimizer.state[parameter].items()
        if isinstance(value, Tensor)
    }


def restore_optimizer(optimizer: Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Give a new optimizer the state that `optimizer_tensors` returned; other names are left alone."""
    parameters = _parameters(optimizer)
    for name, value in tensors.items():
        if name.startswith(_PREFIX):
            index, word = name.removeprefix(_PREFIX).split(".")
            parameter = parameters[int(index)]
            # Adam keeps its step count on the CPU in float32, whatever the parameter is.
            like = parameter.detach() if value.shape == parameter.shape else torch.empty_like(value)
            optimizer.state[parameter][word] = torch.empty_like(like).copy_(value)


def _parameters(optimizer: Optimizer) -> list[nn.Parameter]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]
