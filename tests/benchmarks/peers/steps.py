"""Training steps, and loading the bundled digits."""

import subprocess
import sys

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import flatprobe as fp
from tests.benchmarks.peers.contest import HAND, Contest, Subject, Work, close, network

BATCH, EPOCHS = 64, {"digits": 6, "MLP": 4, "CNN": 4, "ResNet": 1}
LEARNING_RATE, STRENGTH = 0.02, 1e-3
OURS_DIGITS = "import flatprobe as fp; print(fp.load_data('digits', split='train').inputs.shape)"
THEIRS_DIGITS = """
import importlib.util, pathlib, numpy, torch
folder = pathlib.Path(importlib.util.find_spec("sklearn").origin).parent
table = numpy.loadtxt(folder / "datasets/data/digits.csv.gz", delimiter=",", dtype=numpy.float32)
print(torch.from_numpy(table[:, :64]).view(-1, 1, 8, 8).div_(16).shape)
"""


def by_hand(s: Subject, *, penalised: bool) -> nn.Module:
    """SGD with momentum in random order; the penalty is ||J||_F^2 / 2 by one random projection per sample.

    The penalty is that of jacobian_regularizer (Hoffman et al. 2019), which the package index does not have.
    """
    model = network(s.name).train()
    if s.name in {"CNN", "ResNet"}:
        model = model.to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(model.parameters(), lr=LEARNING_RATE, momentum=0.9)
    for _ in range(EPOCHS[s.name]):
        for positions in torch.randperm(len(s.data)).split(BATCH):
            x = s.inputs[positions].requires_grad_(penalised)
            z = model(x)
            loss = F.cross_entropy(z, s.labels[positions])
            if penalised:
                v = F.normalize(torch.randn_like(z), dim=1)
                (product,) = torch.autograd.grad(z, x, v, create_graph=True)
                loss = loss + STRENGTH * z.shape[1] * product.square().sum() / len(z) / 2
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
    return model.eval()


def _training(s: Subject, *, penalised: bool) -> Contest:
    penalty = [(STRENGTH / 2, fp.penalties.JacobianFrobenius(projections=1))] if penalised else []

    def ours() -> nn.Module:
        settings = {"epochs": EPOCHS[s.name], "learning_rate": LEARNING_RATE, "batch_size": BATCH}
        return fp.train(network(s.name), s.data, penalties=penalty, **settings).model

    def check() -> str:
        risks = [fp.EmpiricalRisk(model, s.data)().loss for model in (ours(), by_hand(s, penalised=penalised))]
        close(*risks, 0.35)
        return f"{EPOCHS[s.name] * -(-len(s.data) // BATCH)} steps"

    peers = {HAND: lambda: by_hand(s, penalised=penalised)}
    return Contest(ours, peers, check, "with the setup; ours records each epoch")


def training(s: Subject) -> Contest:
    return _training(s, penalised=False)


def penalty(s: Subject) -> Contest:
    return _training(s, penalised=True)


def forward_pass(s: Subject) -> Contest:
    """One step on one batch: `fp.ForwardPass` without a penalty, and the same by hand."""
    x, y = s.inputs[:BATCH], s.labels[:BATCH]

    def stepping(*, ours: bool) -> Work:
        model = network(s.name).train()
        optimizer = torch.optim.SGD(model.parameters(), lr=LEARNING_RATE, momentum=0.9)

        def step() -> Tensor:
            optimizer.zero_grad(set_to_none=True)
            loss = fp.ForwardPass(model, x, y).loss if ours else F.cross_entropy(model(x), y)
            loss.backward()
            optimizer.step()
            return loss.detach()

        return step

    def check() -> None:
        first, second = stepping(ours=True), stepping(ours=False)
        for _ in range(3):
            close(float(first()), float(second()), 1e-3)

    return Contest(stepping(ours=True), {HAND: stepping(ours=False)}, check)


def digits(_: Subject) -> Contest:
    """In a new process each: the imports are most of the time."""

    def run(source: str) -> str:
        return subprocess.run([sys.executable, "-c", source], check=True, capture_output=True, text=True).stdout

    def check() -> None:
        assert "1, 8, 8" in run(OURS_DIGITS)
        assert "1, 8, 8" in run(THEIRS_DIGITS)

    peers = {"numpy's reader": lambda: run(THEIRS_DIGITS)}
    return Contest(lambda: run(OURS_DIGITS), peers, check, "a new process each, with its imports; ours splits too")
