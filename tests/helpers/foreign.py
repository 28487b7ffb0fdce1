"""Classifiers that are not the house's own: dicts, tuples, `.logits`, tied weights, buffers that are written to."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from flatprobe.data import LabelledData
from flatprobe.utils import rng

SAMPLES, TOKENS, WORDS, CLASSES = 10, 6, 17, 4


def built(make: Callable[[], nn.Module], seed: int = 0) -> nn.Module:
    """Made from a seed, in float64 and eval mode."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return make().double().eval()


def labels() -> Tensor:
    return torch.arange(SAMPLES) % CLASSES


def pixels() -> Tensor:
    return torch.rand(SAMPLES, 1, 8, 8, generator=rng.generator(0, "pixels"), dtype=torch.float64)


def ids() -> Tensor:
    """Words 1, ..., 16; 0 stands where a sample has ended."""
    words = torch.randint(1, WORDS, (SAMPLES, TOKENS), generator=rng.generator(0, "ids"))
    return words * mask()


def mask() -> Tensor:
    """The first 3, 4, 5 or 6 tokens of each sample."""
    lengths = 3 + torch.arange(SAMPLES) % 4
    return (torch.arange(TOKENS) < lengths[:, None]).long()


def vit(seed: int = 0) -> nn.Module:
    from transformers import ViTConfig, ViTForImageClassification

    config = ViTConfig(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=24, image_size=8, patch_size=4,
        num_channels=1, num_labels=CLASSES,
    )  # fmt: skip
    return built(lambda: ViTForImageClassification(config), seed)


def bert(seed: int = 0, **changes: Any) -> nn.Module:
    from transformers import BertConfig, BertForSequenceClassification

    settings: dict[str, Any] = {
        "vocab_size": WORDS, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2,
        "intermediate_size": 24, "max_position_embeddings": 8, "num_labels": CLASSES, "initializer_range": 0.3,
    }  # fmt: skip
    return built(lambda: BertForSequenceClassification(BertConfig(**settings | changes)), seed)


class Encoder(nn.Module):
    """Text by torch's own encoder layers: inputs (ids, mask), the mean over all tokens, padded ones too."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(WORDS, 8)
        self.positions = nn.Embedding(TOKENS, 8)
        self.encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), 2)
        self.head = nn.Linear(8, CLASSES)

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        x = self.table(ids) + self.positions(torch.arange(ids.shape[1], device=ids.device))
        return self.head(self.encoder(x, src_key_padding_mask=mask == 0).mean(1))


class Tied(nn.Module):
    """z = V^T tanh(W tanh(V x)) with the same V twice, and a counter that every pass writes to."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.middle, self.last = nn.Linear(64, CLASSES), nn.Linear(CLASSES, 64), nn.Linear(64, CLASSES)
        self.last.weight = self.first.weight
        self.register_buffer("calls", torch.zeros((), dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1  # in place
        return self.last(self.middle(self.first(x.flatten(1)).tanh()).tanh()) + 0.1 * self.calls.log()


class TensorIn(nn.Module):
    """A network of one dict entry as a network of one tensor."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> object:
        return self.network(pixel_values=x)


MODELS: dict[str, Callable[..., nn.Module]] = {
    "vit": vit,
    "vit of a tensor": lambda seed=0: TensorIn(vit(seed)).eval(),
    "bert": bert,
    "encoder": lambda seed=0: built(Encoder, seed),
    "tied": lambda seed=0: built(Tied, seed),
}
INPUTS: dict[str, Callable[[], Any]] = {
    "vit": lambda: {"pixel_values": pixels()},
    "vit of a tensor": pixels,
    "bert": lambda: {"input_ids": ids(), "attention_mask": mask()},
    "encoder": lambda: (ids(), mask()),
    "tied": pixels,
}
TEXT = ("bert", "encoder")


def data(name: str) -> LabelledData:
    return LabelledData(INPUTS[name](), labels())


def logits(model: nn.Module, inputs: Any) -> Tensor:
    """What a caller gets by hand."""
    if isinstance(inputs, dict):
        outputs = model(**inputs)
    else:
        outputs = model(*inputs) if isinstance(inputs, tuple) else model(inputs)
    return getattr(outputs, "logits", outputs)
