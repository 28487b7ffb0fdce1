"""Modules whose weights belong to one step of a trace alone."""

from collections import Counter

import torch
from torch import Tensor, nn

from flatprobe.graph import Graph, Step
from flatprobe.network.modules import BATCH_NORMS

_LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)


class Owners:
    """Modules of a traced network with unshared weights and a single use.

    Args:
        module: the network.
        graph: the trace of the network.
    """

    def __init__(self, module: nn.Module, graph: Graph) -> None:
        self._modules = dict(module.named_modules(remove_duplicate=False))
        # Every registration of a tensor; a tied tensor has several.
        places = [
            value
            for layer in module.modules()
            for value in (*layer.parameters(recurse=False), *layer.buffers(recurse=False))
        ]
        self._holders = Counter(value.data_ptr() for value in places if value.numel())
        self._uses = Counter(id(self._modules[step.layer]) for step in graph.steps if self._kind(step))

    def name(self, step: Step) -> str | None:
        """The module of a step if its tensors serve this step alone, else None."""
        if not self._kind(step):
            return None
        layer = self._modules[step.layer]
        if self._uses[id(layer)] != 1 or any(self._holders[value.data_ptr()] > 1 for value in _tensors(layer)):
            return None
        own = dict(layer.named_parameters())
        if not own.keys() <= {"weight", "bias"}:  # A subclass may compute with further parameters.
            return None
        if isinstance(layer, BATCH_NORMS):
            return step.layer if step.kind == "affine" else None
        weight = own.get("weight")  # A computed weight is not a parameter.
        same = weight is not None and torch.equal(weight.detach().cpu().double(), step.tensors["weight"])
        return step.layer if same and step.options.get("groups", 1) == 1 else None

    def is_norm(self, step: Step) -> bool:
        """True for a step of a BatchNorm module."""
        return step.kind == "affine" and isinstance(self._modules.get(step.layer), BATCH_NORMS)

    def has_weight(self, name: str) -> bool:
        """True if the module has a weight; a BatchNorm may have none."""
        return dict(self._modules[name].named_parameters(recurse=False)).get("weight") is not None

    def _kind(self, step: Step) -> bool:
        layer = self._modules.get(step.layer)
        return self.is_norm(step) or (step.kind in {"linear", "convolution"} and isinstance(layer, _LAYERS))


def _tensors(layer: nn.Module) -> list[Tensor]:
    return [value for value in (*layer.parameters(recurse=False), *layer.buffers(recurse=False)) if value.numel()]
