"""Small classifiers (6 numbers, 3 classes) of the kinds that users bring, and what each function refuses of them."""

import threading
import types
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations, prune
from torch.utils.checkpoint import checkpoint

from flatprobe.data import LabelledData
from flatprobe.utils import rng

WIDTH, CLASSES = 8, 3


def data(samples: int = 12) -> LabelledData:
    inputs = torch.randn(samples, 6, generator=rng.generator(0, "strange"), dtype=torch.float64)
    return LabelledData(inputs, torch.arange(samples) % CLASSES, classes=CLASSES)


class Nested(nn.Module):
    """A body and a head."""

    def __init__(self, body: nn.Module | None = None) -> None:
        super().__init__()
        self.body = body or nn.Sequential(nn.Linear(6, WIDTH), nn.Tanh())
        self.head = nn.Linear(WIDTH, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        z: Tensor = self.head(self.body(x))
        return z


class TwoNames(nn.Module):
    """`self.fc` beside `self.layers`, and the last layer under a short name."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(6, WIDTH)
        self.layers = nn.ModuleList([self.fc, nn.Linear(WIDTH, CLASSES)])
        self.classifier = self.layers[1]

    def forward(self, x: Tensor) -> Tensor:
        z: Tensor = self.classifier(torch.tanh(self.layers[0](x)))
        return z


class Handle(Nested):
    """A handle on a part, and a block under two names."""

    def __init__(self) -> None:
        super().__init__()
        self.first = self.body[0]
        self.trunk = self.body


class TiedTransposed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.head = nn.Linear(6, WIDTH, bias=False), nn.Linear(6, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        z: Tensor = self.head(F.linear(self.a(x).tanh(), self.a.weight.T))
        return z


class Repeated(nn.Module):
    """One block three times in a list, one layer twice in a Sequential."""

    def __init__(self) -> None:
        super().__init__()
        block, layer = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)
        self.inlet, self.head = nn.Linear(6, WIDTH), nn.Linear(WIDTH, CLASSES)
        self.blocks = nn.ModuleList([block] * 3)
        self.mid = nn.Sequential(layer, nn.Tanh(), layer)

    def forward(self, x: Tensor) -> Tensor:
        z = self.inlet(x)
        for block in self.blocks:
            z = block(z).tanh()
        return self.head(self.mid(z))  # type: ignore[no-any-return]


class Counts(Nested):
    """Writes to a buffer in place, assigns another, counts in a plain attribute and fills a list."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("written", torch.ones(CLASSES))
        self.register_buffer("assigned", torch.ones(()))
        self.calls, self.seen = 0, ["start"]

    def forward(self, x: Tensor) -> Tensor:
        z = super().forward(x) * self.written.clone() * self.assigned
        self.written += 1
        self.assigned = self.assigned * 2
        self.calls += 1
        self.seen.append("a pass")
        return z


class Caches(Nested):
    """Computes something of its weights once and keeps it: another function at other weights, if it were kept."""

    def __init__(self) -> None:
        super().__init__()
        self.cache: Tensor | None = None
        self.store: dict[str, Tensor] = {}

    def forward(self, x: Tensor) -> Tensor:
        if self.cache is None:
            self.cache = self.body[0].weight @ self.body[0].weight.T
        if "scale" not in self.store:
            self.store["scale"] = self.head.weight.norm()
        z: Tensor = self.head(self.body(x) @ self.cache) / self.store["scale"]
        return z


class Keeps(Nested):
    """Keeps its features, with their graph."""

    features: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        self.features = self.body(x)
        z: Tensor = self.head(self.features)
        return z


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rnn, self.head = nn.LSTM(2, WIDTH, batch_first=True), nn.Linear(WIDTH, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        z: Tensor = self.head(self.rnn(x.reshape(len(x), 3, 2))[0][:, -1])
        return z


class Attends(nn.Module):
    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.inlet, self.layer, self.head = nn.Linear(2, WIDTH), layer, nn.Linear(WIDTH, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.inlet(x.reshape(len(x), 3, 2))
        mixed = self.layer(tokens, tokens, tokens)[0] if isinstance(self.layer, nn.MultiheadAttention) else None
        z: Tensor = self.head((self.layer(tokens) if mixed is None else mixed).mean(1))
        return z


class Checkpointed(Nested):
    def forward(self, x: Tensor) -> Tensor:
        z: Tensor = self.head(checkpoint(self.body, x, use_reentrant=False))
        return z


class Lists(nn.Module):
    """Weights in a ParameterList and a ParameterDict, the same again in a plain list, and objects of other kinds."""

    def __init__(self) -> None:
        super().__init__()
        self.weights = nn.ParameterList([nn.Parameter(torch.randn(WIDTH, 6)), nn.Parameter(torch.randn(WIDTH))])
        self.named = nn.ParameterDict({"head": nn.Parameter(torch.randn(CLASSES, WIDTH))})
        self.plain = [self.weights[0], self.named["head"]]
        self.generator, self.lock, self.table = torch.Generator(), threading.Lock(), np.ones(3)
        self.constant = torch.ones(WIDTH)
        self.helper = types.SimpleNamespace(owner=self, scale=[2.0])

    def forward(self, x: Tensor) -> Tensor:
        z = F.linear(x, self.plain[0], self.weights[1]).tanh() * self.constant
        return F.linear(z, self.helper.owner.plain[1]) * self.helper.scale[0]


class Convolutional(nn.Module):
    """A strided 1x1 convolution on few channels, and the view that wants the usual layout."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.skip = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 4, 1, stride=2)
        self.head = nn.Linear(8, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        z = self.skip(self.conv(x.view(len(x), 1, 2, 3)).relu())
        return self.head(z.view(z.size(0), -1))  # type: ignore[no-any-return]


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
        layer.kept = outputs  # type: ignore[assignment]

    model.body[0].register_forward_hook(keep)
    return model


def patched() -> nn.Module:
    """A `forward` replaced by a function that calls the old one."""
    model = nn.Sequential(nn.Linear(6, WIDTH), nn.Tanh(), nn.Linear(WIDTH, CLASSES))
    outer, inner = model.forward, model[0].forward
    model.forward = lambda x: 2 * outer(x)  # type: ignore[method-assign]
    model[0].forward = partial(lambda old, x: 3 * old(x), inner)  # type: ignore[method-assign]
    return model


def rebound() -> nn.Module:
    model = Nested()
    model.forward = types.MethodType(lambda self, x: self.head(self.body(x)).mul(2), model)  # type: ignore[method-assign]
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
    return Nested(torch.compile(nn.Sequential(nn.Linear(6, WIDTH), nn.Tanh()), backend="eager"))  # type: ignore[arg-type]


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
