"""Networks with weights that do not act: unused words, a second head, pruned entries."""

import torch
from torch import nn
from torch.nn.utils import prune

import flatprobe as fp

WORDS = 12


TOKENS = torch.randint(0, WORDS, (60, 5), generator=torch.Generator().manual_seed(0))


TEXTS = fp.LabelledData(TOKENS, (TOKENS.float().mean(1) > WORDS / 2).long(), classes=2)


VECTORS = fp.LabelledData(torch.randn(50, 6, generator=torch.Generator().manual_seed(1)), torch.arange(50) % 3)


class Words(nn.Module):
    """The mean of word vectors and a linear layer; words from `WORDS` on are in no text."""

    def __init__(self, vocabulary: int, **options: object) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.head = nn.Linear(4, 2)
        vectors = torch.randn(WORDS, 4)
        self.table = nn.Embedding(vocabulary, 4, **options)
        self.table.weight.data[:WORDS] = vectors

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.head(self.table(tokens).mean(1))


def dense() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3)).eval()


class Auxiliary(nn.Module):
    """A second head that forward uses in training only."""

    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.network = dense()
        self.second = nn.Linear(6, outputs)
        self.eval()

    def forward(self, inputs: torch.Tensor) -> object:
        logits = self.network(inputs)
        return (logits, self.second(inputs)) if self.training else logits


def pruned(amount: float) -> nn.Sequential:
    network = dense()
    prune.random_unstructured(network[0], "weight", amount)
    return network.eval()


def of_texts(vocabulary: int, **options: object) -> fp.EmpiricalRisk:
    return fp.EmpiricalRisk(Words(vocabulary, **options).eval(), TEXTS)
