"""Missing derivatives of a network, and the layer that lacks them."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from flatprobe.data.inputs import Inputs, few_rows
from flatprobe.network.network import Network
from flatprobe.utils.plain_functions import twice_differentiable


def check_differentiable(network: Network, inputs: Tensor) -> None:
    """Check that the logits of a few samples have a gradient in the inputs.

    Raises:
        ValueError: if they have none, naming the first layer whose output has no gradient.
    """
    rows = few_rows(len(inputs))
    few, held = inputs.detach()[rows.to(inputs.device)].requires_grad_(), network.choosing(rows)
    with torch.inference_mode(mode=False), torch.enable_grad(), explain_errors(held, few, twice=False):
        logits = held(few)
        if logits.requires_grad:
            torch.autograd.grad(logits.sum(), few, allow_unused=True)
            return
        layer = _find_cut(held, few)
    where = f"the layer {layer}" if layer else "its own forward, outside its layers"
    msg = (
        f"the logits of {network.name} do not depend differentiably on the inputs: the gradient ends "
        f"in {where}; expected layers that have gradients: look for .detach(), torch.no_grad() or integers there, or "
        "measure with noise (gaussian_robustness)"
    )
    raise ValueError(msg)


def _find_cut(network: Network, inputs: Tensor) -> str | None:
    """The first innermost module whose output loses the gradient of its input."""
    copied = network.copy()
    found: list[str] = []

    def watch(name: str) -> Any:
        def hook(layer: nn.Module, args: Any, outputs: Any) -> None:
            given = any(isinstance(value, Tensor) and value.requires_grad for value in args)
            if given and isinstance(outputs, Tensor) and not outputs.requires_grad:
                found.append(f"{name!r} ({type(layer).__name__})")

        return hook

    for name, layer in copied.module.named_modules():
        if name:
            layer.register_forward_hook(watch(name))
    copied(inputs.detach().clone().requires_grad_())
    return found[0] if found else None


def check_dense(network: Network, gradient: Sequence[Tensor | None]) -> None:
    """Check that no gradient is sparse.

    Raises:
        ValueError: for a sparse gradient, with its shape.
    """
    for part in gradient:
        if part is not None and part.layout != torch.strided:
            msg = (
                f"{network.name} has a sparse gradient, of shape {tuple(part.shape)}; expected dense ones: leave out "
                "sparse=True where its forward calls an embedding"
            )
            raise ValueError(msg)


# Words that mark an error of torch as one about derivatives.
_ABOUT = ("derivative", "differentia", "grad", "backward")
_FIXES = {
    "checkpoint": "switch activation checkpointing off, or give it use_reentrant=False",
    "embedding_bag": "nn.Embedding and a sum over the tokens in place of nn.EmbeddingBag",
    "cdist": 'torch.cdist(..., compute_mode="use_mm_for_euclid_dist")',
    "once_differentiable": "a backward without @once_differentiable, made of torch's own functions",
}


@contextmanager
def explain_errors(network: Network, inputs: Inputs, *, twice: bool) -> Iterator[None]:
    """Context whose errors about derivatives name the layer and a fix.

    Args:
        network: the network that is differentiated.
        inputs: some samples.
        twice: True for second derivatives.

    Raises:
        ValueError: for an error about derivatives.
        RuntimeError: any other error of torch, such as exhausted memory, unchanged.
    """
    try:
        yield
    except RuntimeError as error:
        if not any(word in str(error) for word in _ABOUT):
            raise
        said = str(error).splitlines()[0] if str(error) else type(error).__name__
        fix = next((fix for word, fix in _FIXES.items() if word in said.lower()), "another layer in its place")
        msg = (
            f"{network.name} cannot be differentiated{' twice' if twice else ''} ({said}); torch refuses it in "
            f"{_find_refusing(network, inputs, twice=twice)}; expected operations with "
            f"{'second ' if twice else ''}derivatives: {fix}"
        )
        raise ValueError(msg) from error


def _find_refusing(network: Network, inputs: Inputs, *, twice: bool) -> str:
    """The first innermost layer that torch cannot differentiate (twice)."""
    copied = network.copy()
    found: list[str] = []

    def watch(name: str) -> Any:
        def hook(layer: nn.Module, args: Any, kwargs: Any, _outputs: Any) -> None:
            if not found and not _is_differentiable(layer, args, kwargs, twice=twice):
                found.append(f"the layer {name!r} ({type(layer).__name__})")

        return hook

    for name, layer in copied.module.named_modules():
        if name:
            layer.register_forward_hook(watch(name), with_kwargs=True)
    variables = {name: value.clone().requires_grad_() for name, value in copied.weights.items()}
    with torch.inference_mode(mode=False), torch.enable_grad():
        copied(copied.prepare(inputs), variables)
    return found[0] if found else "its own forward, outside its layers"


def _is_differentiable(layer: nn.Module, args: Any, kwargs: Any, *, twice: bool) -> bool:
    args = [
        part.detach().clone().requires_grad_() if isinstance(part, Tensor) and part.is_floating_point() else part
        for part in args
    ]
    variables = [part for part in (*args, *layer.parameters()) if isinstance(part, Tensor) and part.requires_grad]
    try:
        with twice_differentiable():
            outputs = layer.forward(*args, **kwargs)
        if not isinstance(outputs, Tensor) or not outputs.requires_grad or not variables:
            return True
        cotangent = torch.ones_like(outputs).requires_grad_()
        first = torch.autograd.grad(outputs, variables, cotangent, create_graph=twice, allow_unused=True)
        curved = [part.square().sum() for part in first if part is not None and part.requires_grad]  # type: ignore[redundant-expr]
        if twice and curved:
            torch.autograd.grad(curved, [*variables, cotangent], allow_unused=True)
    except RuntimeError:
        return False
    return True
