"""Whether a network's logits depend differentiably on its inputs, and the layer that cuts them off where not."""

import copy
from typing import Any

import torch
from torch import Tensor, nn

from flatprobe.network import Network


def check_differentiable(network: Network, inputs: Tensor) -> None:
    """The logits have a gradient in the inputs; one forward pass.

    Raises:
        ValueError: where they have none, naming the first layer whose output has lost it.
    """
    with torch.inference_mode(mode=False), torch.enable_grad():
        if network(inputs.detach().clone().requires_grad_()).requires_grad:
            return
        layer = _cut(network, inputs)
    where = f"the layer {layer}" if layer else "its own forward, outside its layers"
    msg = (
        f"the logits of {type(network.module).__name__} do not depend differentiably on the inputs: the gradient ends "
        f"in {where}; expected layers that have gradients: look for .detach(), torch.no_grad() or integers there, or "
        "measure with noise (gaussian_robustness)"
    )
    raise ValueError(msg)


def _cut(network: Network, inputs: Tensor) -> str | None:
    """The first innermost module whose input has a gradient and whose output has none, run on a copy of the network."""
    module = copy.deepcopy(network.module).requires_grad_(requires_grad=False)
    found: list[str] = []

    def watch(name: str) -> Any:
        def hook(layer: nn.Module, args: Any, outputs: Any) -> None:
            given = any(isinstance(value, Tensor) and value.requires_grad for value in args)
            if given and isinstance(outputs, Tensor) and not outputs.requires_grad:
                found.append(f"{name!r} ({type(layer).__name__})")

        return hook

    for name, layer in module.named_modules():
        if name:
            layer.register_forward_hook(watch(name))
    module(inputs.detach().clone().requires_grad_())
    return found[0] if found else None
