"""SGDL: stochastic gradient descent with Gaussian noise in each update (Poggio et al. 2017, eq. 5)."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from flatprobe.utils.rng import generator

# Name of the step count among the optimizer's tensors, as in torch's Adam.
STEP = "step"


def add_noise(optimizer: Optimizer, *, seed: int, noise: float, decay: float) -> Optimizer:
    """w_{t+1} = w_t - r v_t + s (1 + t)^(-a) W_t, W_t ~ N(0, I) over all trained parameters, t = 0, 1, ...

    The optimizer takes its step -r v_t; with SGD at momentum 0 this is T3's eq. 5. The noise does not enter the
    velocity, and a schedule does not scale it, as T3's gamma'_t is a separate sequence. W_t is a function of (seed, t,
    the parameter's position), drawn on the CPU in float32, so that resuming and the device change nothing. Cost: one
    normal number per weight and step.

    Args:
        optimizer: receives a hook after its step, and the step count in its state. All its parameters get noise, also
            those that the loss does not use.
        seed: of the noise.
        noise: s, the noise's standard deviation in the first step, in the weights' units. sqrt(2 r T) with decay 0 is
            the Langevin equation at temperature T.
        decay: a; 0 is the constant power of T3's Fig. 6.

    Returns:
        The optimizer.
    """
    parameters: list[nn.Parameter] = [parameter for group in optimizer.param_groups for parameter in group["params"]]

    def perturb(optimizer: Optimizer, _args: Any, _kwargs: Any) -> None:
        counter: Tensor = optimizer.state[parameters[0]].setdefault(
            STEP, torch.zeros((), dtype=torch.int64, device="cpu")
        )
        t = int(counter)
        scale = noise * (1 + t) ** -decay
        with torch.no_grad():
            for position, parameter in enumerate(parameters):
                # The law of the noise stays that of earlier versions, so that their runs can be repeated and resumed.
                drawn = generator(seed, "sgdl", t, position)
                normal = torch.randn(parameter.shape, generator=drawn, dtype=torch.float32, device="cpu")
                parameter.add_(normal.to(parameter), alpha=scale)
        counter += 1

    optimizer.register_step_post_hook(perturb)
    return optimizer
