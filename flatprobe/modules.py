"""A caller's module looked at: what it wraps, its mode, its weights, its logits."""

from collections.abc import Mapping

from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)


def unwrapped(module: nn.Module) -> nn.Module:
    """The network inside what `torch.compile`, `nn.DataParallel` or `AveragedModel` made of it; any other as it is."""
    while True:
        inner = getattr(module, "_orig_mod", None)
        if isinstance(module, nn.DataParallel | nn.parallel.DistributedDataParallel | AveragedModel):
            inner = module.module
        if not isinstance(inner, nn.Module):
            return module
        module = inner


def check_finite(state: Mapping[str, Tensor], owner: str) -> None:
    """Every tensor is finite.

    Raises:
        ValueError: naming the first parameter or buffer that is not, and how many of its entries.
    """
    for name, value in state.items():
        if value.is_floating_point() and not bool(value.isfinite().all()):
            count = int((~value.isfinite()).sum())
            msg = (
                f"{owner} has {count} NaN or infinite values among the {value.numel()} of {name!r}; expected finite "
                "weights: the training has diverged or the checkpoint is damaged"
            )
            raise ValueError(msg)


def check_real(module: nn.Module) -> None:
    """Every parameter is real: directions, norms and derivatives are of real numbers.

    Raises:
        ValueError: naming the first that is complex.
    """
    for name, value in module.named_parameters():
        if value.is_complex():
            msg = (
                f"the parameter {name!r} of {type(module).__name__} is complex ({value.dtype}); expected real ones: "
                "keep its real and its imaginary part as two parameters, and call torch.complex(real, imaginary) in "
                "forward"
            )
            raise ValueError(msg)


def check_mode(module: nn.Module) -> None:
    """The module is in eval mode throughout, and no BatchNorm depends on the batch.

    Raises:
        ValueError: naming the submodule that is not, and the cure.
    """
    for name, layer in module.named_modules():
        if layer.training:
            part = f"its submodule {name!r}" if name else "it"
            msg = (
                f"the network {type(module).__name__} cannot be probed: {part} is in training mode, expected eval "
                "mode; "
                "call model.eval() first"
            )
            raise ValueError(msg)
        if isinstance(layer, BATCH_NORMS) and layer.running_mean is None:
            msg = (
                f"the BatchNorm layer {name!r} of {type(module).__name__} keeps no running statistics, so its output "
                "depends on "
                "the batch; expected track_running_stats=True"
            )
            raise ValueError(msg)


def logits_of(outputs: object, module: nn.Module) -> Tensor:
    """The logits in what a module returned: a tensor, or its attribute `logits`.

    Raises:
        ValueError: if they are no floating (batch, classes) of at least 2 classes.
    """
    logits = getattr(outputs, "logits", outputs)
    if not isinstance(logits, Tensor) or logits.ndim != 2 or logits.shape[1] < 2 or not logits.is_floating_point():
        what = f"shape {tuple(logits.shape)}, {logits.dtype}" if isinstance(logits, Tensor) else type(logits).__name__
        msg = (
            f"the output of {type(module).__name__} is {what}; expected floating logits of shape (batch, classes) "
            "with at "
            "least 2 classes: wrap the network in a module that returns them"
        )
        raise ValueError(msg)
    return logits
