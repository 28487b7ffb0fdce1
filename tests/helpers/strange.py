"""Small classifiers (6 numbers, 3 classes) of the kinds that users bring, and what each function refuses of them."""

import types
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune

from flatprobe.data import LabelledData
from flatprobe.utils import rng
from tests.helpers.strange_modules import (
    CLASSES,
    WIDTH,
    Attends,
    Caches,
    Checkpointed,
    Convolutional,
    Counts,
    Handle,
    Keeps,
    Lists,
    Nested,
    Recurrent,
    Repeated,
    TiedTransposed,
    TwoNames,
)


def data(samples: int = 12) -> LabelledData:
    inputs = torch.randn(samples, 6, generator=rng.generator(0, "strange"), dtype=torch.float64)
    return LabelledData(inputs, torch.arange(samples) % CLASSES, classes=CLASSES)


def built(make: Callable[..., nn.Module], *arguments: Any) -> nn.Module:
    """A network made from seed 0, in float64 and eval mode."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return make(*arguments).double().eval()


def seeded(make: Callable[[], nn.Module]) -> nn.Module:
    """A network made from seed 3, in its precision and eval mode."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        return make().eval()


def sequential(*layers: nn.Module) -> nn.Module:
    return nn.Sequential(*layers, nn.Tanh(), nn.Linear(WIDTH, CLASSES))


def hooked(hook: Any, kind: str = "register_forward_hook") -> nn.Module:
    model = Nested()
    getattr(model.body[0], kind)(hook)
    return model


def keeping_hook() -> nn.Module:
    model = Nested()
    kept: list[Tensor] = []

    def keep(layer: nn.Module, _inputs: Any, outputs: Tensor) -> None:
        kept.append(outputs)
        layer.kept = outputs

    model.body[0].register_forward_hook(keep)
    return model


def patched() -> nn.Module:
    """A `forward` replaced by a function that calls the old one."""
    model = nn.Sequential(nn.Linear(6, WIDTH), nn.Tanh(), nn.Linear(WIDTH, CLASSES))
    outer, inner = model.forward, model[0].forward
    model.forward = lambda x: 2 * outer(x)
    model[0].forward = partial(lambda old, x: 3 * old(x), inner)
    return model


def rebound() -> nn.Module:
    model = Nested()
    model.forward = types.MethodType(lambda self, x: self.head(self.body(x)).mul(2), model)
    return model


def tied() -> nn.Module:
    first, second = nn.Linear(6, 6), nn.Linear(6, 6)
    second.weight = first.weight
    return nn.Sequential(first, nn.Tanh(), second, nn.Tanh(), nn.Linear(6, CLASSES))


def pruned() -> nn.Module:
    layer = nn.Linear(6, WIDTH)
    prune.l1_unstructured(layer, "weight", 0.5)
    return sequential(layer)


def frozen() -> nn.Module:
    model = Nested(nn.Sequential(nn.Linear(6, WIDTH), nn.BatchNorm1d(WIDTH)))
    model.body.requires_grad_(requires_grad=False)
    return model


def normed() -> nn.Module:
    model = sequential(nn.Linear(6, WIDTH), nn.BatchNorm1d(WIDTH))
    model(torch.randn(30, 6))
    return model


def inner_compiled() -> nn.Module:
    return Nested(torch.compile(nn.Sequential(nn.Linear(6, WIDTH), nn.Tanh()), backend="eager"))


def _scaled(_layer: nn.Module, _inputs: Any, outputs: Tensor) -> Tensor:
    return 2 * outputs


def _shifted(_layer: nn.Module, inputs: Any) -> Any:
    return (inputs[0] + 1,)


def _halved(_layer: nn.Module, gradients: Any, _outputs: Any) -> Any:
    return tuple(None if part is None else part / 2 for part in gradients)


def _weight_norm(layer: nn.Module) -> nn.Module:
    """The hook that torch has deprecated."""
    from torch.nn.utils.weight_norm import WeightNorm

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        WeightNorm.apply(layer, "weight", 0)
    return layer


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "plain": Nested,
    "sequential": lambda: sequential(nn.Linear(6, WIDTH)),
    "two names": TwoNames,
    "handle": Handle,
    "repeated": Repeated,
    "tied": tied,
    "tied transposed": TiedTransposed,
    "weight norm": lambda: sequential(parametrizations.weight_norm(nn.Linear(6, WIDTH))),
    "weight norm by a hook": lambda: sequential(_weight_norm(nn.Linear(6, WIDTH))),
    "spectral norm": lambda: sequential(parametrizations.spectral_norm(nn.Linear(6, WIDTH))),
    "spectral norm by a hook": lambda: sequential(nn.utils.spectral_norm(nn.Linear(6, WIDTH))),
    "orthogonal": lambda: sequential(parametrizations.orthogonal(nn.Linear(6, WIDTH))),
    "pruned": pruned,
    "in place": lambda: nn.Sequential(nn.LeakyReLU(0.5, inplace=True), sequential(nn.Linear(6, WIDTH))),
    "forward hook": lambda: hooked(_scaled),
    "forward pre-hook": lambda: hooked(_shifted, "register_forward_pre_hook"),
    "backward hook": lambda: hooked(_halved, "register_full_backward_hook"),
    "hook that keeps": keeping_hook,
    "counts": Counts,
    "caches": Caches,
    "keeps": Keeps,
    "bfloat16": lambda: Nested().bfloat16(),
    "float32": lambda: Nested().float(),
    "compiled": lambda: torch.compile(Nested(), backend="eager"),  # type: ignore[return-value]
    "inner compiled": inner_compiled,
    "data parallel": lambda: nn.DataParallel(Nested()),
    "frozen": frozen,
    "batch norm": normed,
    "dropout": lambda: sequential(nn.Linear(6, WIDTH), nn.Dropout(0.5)),
    "patched": patched,
    "rebound": rebound,
    "recurrent": Recurrent,
    "attention": lambda: Attends(nn.MultiheadAttention(WIDTH, 2, batch_first=True)),
    "encoder": lambda: Attends(nn.TransformerEncoderLayer(WIDTH, 2, 16, batch_first=True)),
    "checkpointed": Checkpointed,
    "lists": Lists,
    "convolutional": Convolutional,
    "group norm": lambda: sequential(nn.Linear(6, WIDTH), nn.GroupNorm(2, WIDTH)),
}


def network(name: str, seed: int = 0) -> nn.Module:
    """One of `NETWORKS` from a seed, in eval mode, in float64 unless its name says otherwise."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = NETWORKS[name]()
    if name == "convolutional":
        return model.float().eval()
    return (model if name in {"bfloat16", "float32"} else model.double()).eval()
