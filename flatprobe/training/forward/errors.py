"""Errors of a forward pass: missing derivatives and opaque modules."""

from collections.abc import Mapping

import torch
from torch import nn


def not_differentiable(*, elsewhere: bool = False) -> str:
    """The reason why a tensor has no gradient in the inputs, or `elsewhere` in the network."""
    if not torch.is_grad_enabled():
        return "gradients are switched off (torch.no_grad), which a penalty needs; expected the pass outside of it"
    if elsewhere:
        return (
            "`of` does not depend differentiably on `at`; expected points of `again`, or a place between the inputs "
            "and `of`: for a ReLU before max pooling, which are exchanged, take its input"
        )
    return (
        "the logits do not depend differentiably on the inputs, which the penalty differentiates them by; expected "
        "layers that have gradients: look for .detach(), torch.no_grad() or integers in the network's forward"
    )


def check_seen(layers: Mapping[str, nn.Module]) -> None:
    """Check that the modules of a network consist of torch functions, which can be recorded.

    Raises:
        ValueError: for compiled and scripted modules, which are opaque.
    """
    for name, layer in layers.items():
        compiled = hasattr(layer, "_orig_mod") or getattr(layer, "_compiled_call_impl", None) is not None
        if compiled or isinstance(layer, torch.jit.ScriptModule):
            msg = (
                f"the module {name or type(layer).__name__!r} is {'compiled' if compiled else 'scripted'}, so its "
                "operations cannot be recorded; expected the module that it was made from"
            )
            raise ValueError(msg)
