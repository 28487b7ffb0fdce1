"""Checks of a user module: wrappers, mode and weights."""

import math
import types
import warnings
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedParameter
from torch.optim.swa_utils import AveragedModel

BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
_TOKENS = (nn.Embedding, nn.MultiheadAttention)


def unwrap(module: nn.Module) -> nn.Module:
    """The network inside `torch.compile`, `nn.DataParallel` or `AveragedModel`."""
    while True:
        inner = getattr(module, "_orig_mod", None)
        if isinstance(module, nn.DataParallel | nn.parallel.DistributedDataParallel | AveragedModel):
            inner = module.module
        if not isinstance(inner, nn.Module):
            return module
        module = inner


def architecture_of(module: nn.Module) -> str:
    """The architecture of a network: "convolutional", "tokens" or "dense"."""
    layers = list(module.modules())
    if any(isinstance(layer, _CONVOLUTIONS) for layer in layers):
        return "convolutional"
    return "tokens" if any(isinstance(layer, _TOKENS) for layer in layers) else "dense"


def named(module: nn.Module) -> dict[str, object]:
    """The class of a network; of one in `fp.Normalised` also the class inside, and mean and std of its inputs.

    The numbers have the digits that the layer's precision holds.
    """
    said: dict[str, object] = {"class": type(module).__name__}
    parts = dict(module.named_children())
    if [*parts] == ["normalise", "network"] and getattr(parts["normalise"], "affine_in_inputs", False):
        said["inner_class"] = type(parts["network"]).__name__
    for layer in module.modules():
        numbers = dict(layer.named_buffers(recurse=False))
        if getattr(layer, "affine_in_inputs", False) and numbers.keys() == {"mean", "std"}:
            said["normalised"] = {name: _short(value) for name, value in numbers.items()}
            break
    return said


def _short(value: Tensor) -> list[float]:
    digits = round(-math.log10(torch.finfo(value.dtype).resolution))
    return [float(f"{number:.{digits}g}") for number in value.tolist()]


def check_finite(state: Mapping[str, Tensor], owner: str) -> None:
    """Check that every tensor is dense, has values, and that the values are finite.

    Raises:
        ValueError: for a tensor on the meta device, naming it.
        ValueError: for a sparse tensor, naming it.
        ValueError: for NaN or infinite values, naming the tensor and their number.
    """
    for name, value in state.items():
        if value.is_meta:
            msg = (
                f"{owner} has no values in {name!r}, which is on the device meta; expected weights: model.to_empty("
                "device='cpu'), then load them"
            )
            raise ValueError(msg)
        if value.layout != torch.strided:
            msg = (
                f"{owner} holds {name!r} in the layout {value.layout}; expected dense tensors: register "
                f"{name.rpartition('.')[2]}.to_dense() in its place"
            )
            raise ValueError(msg)
        # A sum is finite only where all its terms are. It takes one pass over the values and no memory.
        if value.is_floating_point() and not bool(value.sum().isfinite()) and not bool(value.isfinite().all()):
            count = int((~value.isfinite()).sum())
            msg = (
                f"{owner} has {count} NaN or infinite values among the {value.numel()} of {name!r}; expected finite "
                "weights: the training has diverged or the checkpoint is damaged"
            )
            raise ValueError(msg)


def warn_of_unregistered(name: str, found: Sequence[Tensor], consequence: str) -> None:
    """Warning for weights that a network holds without registering them."""
    if not found:
        return
    shapes = ", ".join(str(tuple(value.shape)) for value in found[:5]) + (", ..." if len(found) > 5 else "")
    msg = (
        f"{name} holds weights that it has not registered (in a plain list, dict or closure, say), of shapes {shapes}: "
        f"{consequence}; expected them to be registered: hold layers in an nn.ModuleList or nn.ModuleDict and tensors "
        "in nn.Parameter, or call requires_grad_(False) on what is no part of the network"
    )
    warnings.warn(msg, UserWarning, stacklevel=4)


def check_shapes(module: nn.Module) -> None:
    """Check that every parameter has a shape.

    Raises:
        ValueError: for a lazy layer that has not seen a batch.
    """
    lazy = [name for name, value in module.named_parameters() if isinstance(value, UninitializedParameter)]
    if lazy:
        msg = f"the weight {lazy[0]!r} of a lazy layer has no shape yet; expected one batch passed before"
        raise ValueError(msg)


def _check_real(module: nn.Module) -> None:
    for name, value in module.named_parameters():
        if value.is_complex():
            msg = (
                f"the parameter {name!r} of {type(module).__name__} is complex ({value.dtype}); expected real ones: "
                "keep its real and its imaginary part as two parameters, and call torch.complex(real, imaginary) in "
                "forward"
            )
            raise ValueError(msg)


def check_module(module: nn.Module) -> None:
    """Check that a module is real, in eval mode, and independent of the batch.

    Raises:
        ValueError: for a scripted or exported module, or a complex parameter.
        ValueError: for a submodule in training mode, naming it.
        ValueError: for a BatchNorm layer without running statistics, naming it.
    """
    kind = "TorchScript" if isinstance(module, torch.jit.ScriptModule) else "torch.export"
    if kind == "TorchScript" or any(base.__module__ == "torch.export._unlift" for base in type(module).__mro__):
        msg = (
            f"the network is a {kind} module, whose weights cannot be replaced in a call and whose mode is fixed; "
            "expected the nn.Module that it was made from, in eval mode: load its weights into that, "
            "network.load_state_dict(exported.state_dict())"
        )
        raise ValueError(msg)
    for name, layer in module.named_modules():
        if layer.training:
            part = f"its submodule {name!r}" if name else "it"
            msg = (
                f"the network {type(module).__name__} cannot be probed: {part} is in training mode, expected eval "
                "mode; call model.eval() first"
            )
            raise ValueError(msg)
        if isinstance(layer, BATCH_NORMS) and layer.running_mean is None:
            msg = (
                f"the BatchNorm layer {name!r} of {type(module).__name__} keeps no running statistics, so its output "
                "depends on the batch; expected track_running_stats=True"
            )
            raise ValueError(msg)
    _check_real(module)


def remove_wrappers(layer: nn.Module) -> None:
    """Remove wrappers of compilation and mixed precision from a `forward`."""
    own = vars(layer)
    own.pop("_compiled_call_impl", None)  # Set by module.compile().
    if own.get("_compiler_ctx"):  # Lightning sets it on a compiled module.
        own["forward"] = own["_compiler_ctx"]["original_forward"]
    if "_original_forward" in own:  # accelerate sets it in mixed precision.
        own["forward"] = own.pop("_original_forward")
    inside = getattr(type(layer).forward, "_torchdynamo_orig_callable", None)
    if inside is not None and "forward" not in own:  # The method was decorated with torch.compile.
        own["forward"] = types.MethodType(inside, layer)
