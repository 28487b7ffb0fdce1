"""Classes of small classifiers (6 numbers, 3 classes) that users bring, and what each does beside its layers."""

import threading
import types

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

WIDTH, CLASSES = 8, 3


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
        return self.head(self.mid(z))


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
        return self.head(z.view(z.size(0), -1))
