"""Minimum-norm attacks against foolbox's: median distance and wall time on the same MNIST networks in the same run.

foolbox is not one of the project's requirements: `PYTHONPATH=folder python -m tests.benchmarks attacks` where a folder
has it (with eagerpy, GitPython, requests; numba for the Brendel-Bethge attack). Its rows are left out where it has not.
"""

import importlib
import importlib.util
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn

import flatprobe as fp
from flatprobe.attacks import minimum_norm
from flatprobe.network.inspection import inspect_network
from flatprobe.network.network import Network
from flatprobe.utils import rng
from tests.benchmarks.harness import SHAPES, Row, interleaved

SAMPLES, BOX = 64, (0.0, 1.0)
ROUNDS = 1
# Our attacks' constants were chosen on networks of seed 0 and the first 64 test digits: these are others.
SEED, FIRST = 1, 64
OURS = {
    "ddn": (5, 10, 20, 50, 100),
    "fab": (1, 2, 3, 4, 6, 10, 30),
    "log_barrier": (20, 60),
    "deepfool": (50,),
    "ifgsm": (10,),
}
# The best of several for each sample, as `geometric_margins` takes it.
TOGETHER = ("ddn 20", "log_barrier 60")
# foolbox's class, and its arguments with the number of steps.
THEIRS: dict[str, tuple[str, list[dict[str, int]]]] = {
    "DDN": ("DDNAttack", [{"steps": steps} for steps in (10, 30, 100)]),
    "DeepFool": ("L2DeepFoolAttack", [{"steps": steps} for steps in (10, 50)]),
    "CW": (
        "L2CarliniWagnerAttack",
        [{"binary_search_steps": 6, "steps": 50}, {"binary_search_steps": 6, "steps": 200}],
    ),
    "BrendelBethge": ("L2BrendelBethgeAttack", [{"steps": 50}]),
}

Attack = Callable[[], Tensor]


def trained(name: str) -> tuple[nn.Module, fp.LabelledData]:
    """The MLP or the CNN after a few epochs on 6000 digits, and the samples that are attacked."""
    build = {"MLP": fp.models.mlp, "CNN": fp.models.thumwanit_cnn}[name]
    data = fp.load_data("ylecun/mnist", split="train", limit=6000)
    run = fp.train(build(SHAPES[name], seed=SEED), data, epochs=6, learning_rate=0.05, batch_size=64, seed=SEED)
    test = fp.load_data("ylecun/mnist", split="test", limit=FIRST + SAMPLES)
    assert isinstance(test.inputs, Tensor)
    return run.model, fp.LabelledData(test.inputs[FIRST:], test.labels[FIRST:], classes=test.classes)


def ours(model: nn.Module, data: fp.LabelledData) -> dict[str, Attack]:
    inputs = data.inputs
    assert isinstance(inputs, Tensor)
    network = Network(model)
    inspect_network(network, inputs)
    prepared = network.prepare(inputs)
    assert isinstance(prepared, Tensor)

    def draw(number: int) -> Tensor:
        return rng.sample_normal(0, SAMPLES, inputs.shape[1:], 0, "benchmark", number)

    def attack(name: str, steps: int) -> Tensor:
        return minimum_norm(name, network, prepared, data.labels, box=BOX, draw=draw, steps=steps).points

    attacks: dict[str, Attack] = {
        f"{name} {steps}": lambda name=name, steps=steps: attack(name, steps)
        for name, counts in OURS.items()
        for steps in counts
    }

    def together() -> Tensor:
        points = torch.stack([attacks[name]() for name in TOGETHER])
        best = torch.stack([distances(model, data, own) for own in points]).argmin(0)
        return points[best, torch.arange(len(best))]

    return attacks | {" and ".join(TOGETHER): together}


def theirs(model: nn.Module, data: fp.LabelledData) -> dict[str, Attack]:
    if importlib.util.find_spec("foolbox") is None:
        print("foolbox is not importable: its rows are left out")
        return {}
    foolbox: Any = importlib.import_module("foolbox")
    bounded = foolbox.PyTorchModel(model, bounds=BOX)
    attacks: dict[str, Attack] = {}
    for name, (kind, settings) in THEIRS.items():
        if name == "BrendelBethge" and importlib.util.find_spec("numba") is None:
            print("numba is not importable: foolbox's Brendel-Bethge attack is left out")
            continue
        for arguments in settings:
            attack = getattr(foolbox.attacks, kind)(**arguments)
            steps = " x ".join(map(str, arguments.values()))
            attacks[f"foolbox {name} {steps}"] = lambda attack=attack: attack.run(bounded, data.inputs, data.labels)
    return attacks


def distances(model: nn.Module, data: fp.LabelledData, points: Tensor) -> Tensor:
    """By one rule for all: l2 in float64; inf where the class did not change, 0 where it was wrong before."""
    assert isinstance(data.inputs, Tensor)
    with torch.no_grad():
        changed, wrong = (model(inputs).argmax(1) != data.labels for inputs in (points, data.inputs))
    lengths = (points.double() - data.inputs.double()).flatten(1).norm(dim=1)
    return lengths.where(changed, torch.inf).where(~wrong, 0.0)


def rows() -> Iterator[Row]:
    found: list[Row] = []
    for name in ("MLP", "CNN"):
        model, data = trained(name)
        model.requires_grad_(requires_grad=False)
        works = ours(model, data) | theirs(model, data)
        points: dict[str, Tensor] = {}
        for variant, number, seconds in interleaved(_keeping(works, points), ROUNDS):
            lengths = distances(model, data, points[variant])
            row = {
                "network": name,
                "variant": variant,
                "round": number,
                "samples": SAMPLES,
                "seconds": seconds,
                "median_distance": float(lengths.median()),
                "not_found": int(lengths.isinf().sum()),
            }
            found.append(row)
            yield row
    _print_matches(pd.DataFrame(found))


def _keeping(works: Mapping[str, Attack], points: dict[str, Tensor]) -> dict[str, Callable[[], None]]:
    """The same works, each leaving its latest points under its name."""
    return {name: lambda name=name, work=work: points.update({name: work()}) for name, work in works.items()}


def _print_matches(frame: pd.DataFrame) -> None:
    """For each of foolbox's settings, the setting of ours that is no worse in both figures, if there is one."""
    medians = frame.groupby(["network", "variant"], sort=False)[["seconds", "median_distance"]].median().reset_index()
    peers = medians["variant"].str.startswith("foolbox")
    for peer in medians[peers].itertuples():
        own = medians[~peers & (medians["network"] == peer.network)]
        better = own[(own["seconds"] <= peer.seconds) & (own["median_distance"] <= peer.median_distance)]
        best = better.sort_values("seconds").head(1)
        words = "NONE" if best.empty else "{variant}: {median_distance:.4f} in {seconds:.2f} s".format(**best.iloc[0])
        print(f"{peer.network} {peer.variant}: {peer.median_distance:.4f} in {peer.seconds:.2f} s; no worse: {words}")
