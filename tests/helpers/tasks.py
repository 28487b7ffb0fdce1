"""Small networks and data of tasks other than classification, each with its loss of one sample written out."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

import flatprobe as fp
from tests.helpers.references import NaiveRisk

N = 6


@dataclass
class Case:
    """A task: the risk's arguments, and the loss of one sample (a batch of one) by a plain formula."""

    model: nn.Module
    data: fp.LabelledData
    loss: Any
    single: Callable[[Any, Tensor], Tensor]
    output: Any = None
    plain: nn.Module | None = None  # the same function without torch's fused kernels

    def risk(self, **options: Any) -> fp.EmpiricalRisk:
        return fp.EmpiricalRisk(self.model, self.data, loss=self.loss, output=self.output, **options)

    def naive(self) -> NaiveRisk:
        inputs = self.data.inputs
        samples = []
        for k in range(len(self.data)):
            if isinstance(inputs, dict):
                own: Any = {name: part[k : k + 1] for name, part in inputs.items()}
            else:
                part = inputs[k : k + 1]
                own = (part.double() if part.is_floating_point() else part,)
            samples.append((own, self.data.labels[k]))
        return NaiveRisk(self.plain or self.model, samples, self.single)


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def integers(high: int, *shape: int, seed: int = 0) -> Tensor:
    return torch.randint(high, shape, generator=torch.Generator().manual_seed(seed))


def built(make: Callable[[], nn.Module], seed: int = 1) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return make().double().eval()


def total(terms: Iterable[Tensor]) -> Tensor:
    return torch.stack([*terms]).sum()


def log_likelihood(z: Tensor, y: int) -> Tensor:
    return z[y] - z.exp().sum().log()


def regression() -> Case:
    model = built(lambda: nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 2)))
    data = fp.LabelledData(drawn(N, 3), drawn(N, 2, seed=2))
    return Case(model, data, "squared_error", lambda z, t: total((z[0, j] - t[j]) ** 2 for j in range(2)) / 2)


def absolute() -> Case:
    model = built(lambda: nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 1)))
    data = fp.LabelledData(drawn(N, 3), drawn(N, seed=2))
    return Case(model, data, "absolute_error", lambda z, t: (z[0, 0] - t).abs())


def huber() -> Case:
    def single(z: Tensor, t: Tensor) -> Tensor:
        terms = [(z[0, j] - t[j]).abs() for j in range(2)]
        return total(d**2 / 2 if d < 1 else d - 0.5 for d in terms) / 2

    case = regression()
    return Case(case.model, case.data, nn.SmoothL1Loss(), single)


def binary() -> Case:
    model = built(lambda: nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 1), nn.Flatten(0)))
    data = fp.LabelledData(drawn(N, 3), integers(2, N).double())
    sign = lambda t: 2 * float(t) - 1  # noqa: E731
    return Case(model, data, "binary_cross_entropy", lambda z, t: (1 + (-sign(t) * z[0]).exp()).log())


def attributes() -> Case:
    def single(z: Tensor, t: Tensor) -> Tensor:
        p = 1 / (1 + (-z[0]).exp())
        return -total(p[j].log() if t[j] else (1 - p[j]).log() for j in range(4)) / 4

    model = built(lambda: nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 4)))
    return Case(model, fp.LabelledData(drawn(N, 3), integers(2, N, 4) > 0), "binary_cross_entropy", single)


def segmentation() -> Case:
    def single(z: Tensor, t: Tensor) -> Tensor:
        counted = [(i, j) for i in range(4) for j in range(5) if t[i, j] != 255]
        return -total(log_likelihood(z[0, :, i, j], int(t[i, j])) for i, j in counted) / len(counted)

    layers = lambda: nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.SiLU(), nn.Conv2d(4, 3, 1))  # noqa: E731
    masks = integers(3, N, 4, 5).masked_fill(integers(4, N, 4, 5, seed=3) == 0, 255)
    masks[0, :3] = 255  # the first image has fewer pixels that count
    data = fp.LabelledData(drawn(N, 1, 4, 5), masks)
    return Case(built(layers), data, {"name": "pixel_cross_entropy", "ignore_index": 255}, single)


class Tagger(nn.Module):
    """An LSTM with a label per token, in a dict."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.lstm = nn.Embedding(11, 4), nn.LSTM(4, 5, batch_first=True)
        self.head = nn.Linear(5, 3)

    def forward(self, ids: Tensor) -> dict[str, Tensor]:
        hidden = self.lstm(self.embed(ids))[0]
        return {"hidden": hidden, "tags": self.head(hidden)}


def tagger() -> Case:
    def single(z: dict[str, Tensor], t: Tensor) -> Tensor:
        counted = [i for i in range(6) if t[i] != -100]
        return -total(log_likelihood(z["tags"][0, i], int(t[i])) for i in counted) / len(counted)

    tags = integers(3, N, 6).masked_fill(torch.arange(6) >= torch.tensor([6, 5, 4, 3, 2, 1])[:, None], -100)
    data = fp.LabelledData(integers(11, N, 6), tags)
    return Case(built(Tagger), data, "token_cross_entropy", single, output="tags")


@cache
def _gpt2(attention: str) -> nn.Module:
    from transformers import AutoModelForCausalLM, GPT2Config

    config = GPT2Config(
        vocab_size=19, n_positions=8, n_embd=8, n_layer=1, n_head=2, bos_token_id=0, eos_token_id=0,
        attn_implementation=attention, loss_type="ForCausalLM",
    )  # fmt: skip
    return built(lambda: AutoModelForCausalLM.from_config(config))


def language_model(loss: str = "token_cross_entropy") -> Case:
    def single(outputs: Any, t: Tensor) -> Tensor:
        counted = [i for i in range(1, 8) if t[i] != -100]
        return -total(log_likelihood(outputs.logits[0, i - 1], int(t[i])) for i in counted) / len(counted)

    lengths = torch.tensor([8, 7, 6, 5, 4, 3])
    mask = (torch.arange(8) < lengths[:, None]).long()
    ids = integers(19, N, 8)
    tokens = ids.masked_fill(mask == 0, -100)
    inputs = {"input_ids": ids, "attention_mask": mask} | ({"labels": tokens} if loss == "model" else {})
    named = {"name": loss, "shift": True} if loss != "model" else loss
    return Case(_gpt2("sdpa"), fp.LabelledData(inputs, tokens), named, single, plain=_gpt2("eager"))


CASES: dict[str, Callable[[], Case]] = {
    "regression": regression,
    "absolute error": absolute,
    "user-defined, two outputs": huber,
    "one logit": binary,
    "attributes": attributes,
    "segmentation": segmentation,
    "tagger": tagger,
    "language model": language_model,
}
