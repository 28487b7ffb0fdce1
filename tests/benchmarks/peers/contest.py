"""What a contest is, the networks that it runs on, and CPU seconds of its variants."""

import copy
import math
import resource
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from importlib.metadata import version

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import flatprobe as fp
from flatprobe.data.inputs import channels_last
from flatprobe.network.network import Network
from flatprobe.studies.demo import MEAN, STD, WIDTHS
from tests.benchmarks import harness

Work = Callable[[], object]
HAND = "by hand"
NETWORKS = ("digits", "MLP", "CNN", "ResNet", "ViT-B")
SMALL = NETWORKS[:4]
EPOCHS = {"digits": 5, "MLP": 5, "CNN": 30, "ResNet": 10}
SAMPLES = {"digits": 1500, "MLP": 1024, "CNN": 128, "ResNet": 128, "ViT-B": 16}
LEAST = 0.2  # CPU seconds of a round: shorter works are repeated within it


@dataclass(frozen=True)
class Contest:
    """One work by flatprobe and by its peers.

    `check` asserts that the values agree, and may return them in words; `note` says what else one side computes.
    """

    ours: Work
    peers: Mapping[str, Work]
    check: Callable[[], str | None]
    note: str = ""


@dataclass(frozen=True)
class Subject:
    """A network in eval mode and its data; `plain` is a copy for loops by hand, in the layout of the probes."""

    name: str
    model: nn.Module
    data: fp.LabelledData

    @cached_property
    def size(self) -> int:
        return Network(self.model).batch_size()

    @cached_property
    def plain(self) -> nn.Module:
        model = copy.deepcopy(self.model)
        return model.to(memory_format=torch.channels_last) if self.name in {"CNN", "ResNet"} else model

    @property
    def inputs(self) -> Tensor:
        assert isinstance(self.data.inputs, Tensor)
        return self.data.inputs

    @property
    def labels(self) -> Tensor:
        return self.data.labels

    @cached_property
    def batches(self) -> list[tuple[Tensor, Tensor]]:
        """As large as the probes'."""
        return list(zip(self.inputs.split(self.size), self.labels.split(self.size), strict=True))

    @cached_property
    def laid_out(self) -> list[tuple[Tensor, Tensor]]:
        """The batches in the probes' layout."""
        return [(channels_last(x), y) for x, y in self.batches]

    def risk(self) -> fp.EmpiricalRisk:
        return fp.EmpiricalRisk(self.model, self.data)

    def head(self, samples: int) -> "Subject":
        return Subject(self.name, self.model, self.data.head(min(samples, len(self.data))))


class ViT(nn.Module):
    """ViT-B/16 of transformers on 64 x 64 pixels, 85.7 million weights, which returns its logits."""

    def __init__(self) -> None:
        from transformers import ViTConfig, ViTForImageClassification

        super().__init__()
        self.network = ViTForImageClassification(ViTConfig(image_size=64, num_labels=10))

    def forward(self, inputs: Tensor) -> Tensor:
        return self.network(inputs).logits


def network(name: str, seed: int = 0) -> nn.Module:
    if name == "ViT-B":
        torch.manual_seed(seed)
        return ViT().eval()
    if name == "digits":
        return fp.Normalised(fp.models.mlp((1, 8, 8), widths=WIDTHS, seed=seed), MEAN, STD).eval()
    build = {"MLP": fp.models.mlp, "CNN": fp.models.thumwanit_cnn, "ResNet": fp.models.resnet}[name]
    return build(harness.SHAPES[name], seed=seed, **({"depth": 22} if name == "ResNet" else {})).eval()


@cache
def subject(name: str, *, trained: bool = True) -> Subject:
    """The network after a few epochs, away from the initial weights; the ViT-B untrained, on noise."""
    model, samples = network(name), SAMPLES[name]
    if name == "ViT-B":
        inputs = torch.rand(samples, 3, 64, 64, generator=torch.Generator().manual_seed(0))
        return Subject(name, model, fp.LabelledData(inputs, torch.arange(samples) % 10, classes=10))
    data = fp.load_data("digits", split="train") if name == "digits" else harness.data_for(name, samples)
    if trained:
        model = fp.train(model, data, epochs=EPOCHS[name], learning_rate=0.02, batch_size=32).model
    return Subject(name, model, data)


def cross_entropy(model: nn.Module, batches: list[tuple[Tensor, Tensor]]) -> float:
    """The mean loss over all batches by a plain loop."""
    with torch.no_grad():
        total = sum(float(F.cross_entropy(model(x), y, reduction="sum")) for x, y in batches)
    return total / sum(len(y) for _, y in batches)


def rounds(variants: Mapping[str, Work], count: int) -> Iterator[tuple[str, int, float]]:
    """(variant, round, CPU seconds): variants take turns; round 0 warms up, and says how often a work is repeated."""
    repeats: dict[str, int] = {}
    for number in range(count + 1):
        for name, work in variants.items():
            times = repeats.get(name, 1)
            start = cpu_seconds()
            for _ in range(times):
                work()
            seconds = (cpu_seconds() - start) / times
            if number:
                yield name, number, seconds
            else:
                repeats[name] = min(max(math.ceil(LEAST / seconds), 1), 50)


def cpu_seconds() -> float:
    """Of this process and of those that it started and that have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


def library(distribution: str) -> str:
    """Name and version of a peer, as the table says it."""
    return f"{distribution} {version(distribution)}"


def close(first: float, second: float, tolerance: float) -> None:
    """Assert that two figures agree relative to the larger, or raise with both."""
    assert abs(first - second) <= tolerance * max(abs(first), abs(second)), (first, second)
