"""Interleaved rounds, peak memory in a process of its own, networks to measure on."""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

import flatprobe as fp
from flatprobe.network.network import Network

RECORDS = Path(__file__).parent / "records"

Row = dict[str, Any]


def interleaved(variants: Mapping[str, Callable[[], object]], rounds: int) -> Iterator[tuple[str, int, float]]:
    """(variant, round, seconds): variants take turns, so a machine that slows down slows all; round 0 warms up."""
    for number in range(rounds + 1):
        for name, work in variants.items():
            start = time.perf_counter()
            work()
            if number:
                yield name, number, time.perf_counter() - start


def peak_mebibytes(bench: str, *arguments: str) -> float:
    """Peak memory of `python -m tests.benchmarks.BENCH ARGUMENTS` above what it had before its work."""
    command = [sys.executable, "-m", f"tests.benchmarks.{bench}", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2])
    return float(json.loads(done.stdout.splitlines()[-1])["peak_mebibytes"])


def report_peak(work: Callable[[], object]) -> None:
    """Run the work and print how far the resident memory rose above what it was before; Linux only."""
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak, which importing torch has set
    before = _status("VmRSS")
    work()
    print(json.dumps({"peak_mebibytes": (_status("VmHWM") - before) / 1024}))


def _status(name: str) -> int:
    """A figure of /proc/self/status, in KiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))


def untrained(name: str, classes: int = 10) -> nn.Module:
    """M, C or R with initial weights, in eval mode."""
    shape = SHAPES[name]
    build = {
        "MLP": lambda: fp.models.mlp(shape, classes=classes),
        "CNN": lambda: fp.models.thumwanit_cnn(shape, classes=classes),
        "ResNet": lambda: fp.models.resnet(shape, depth=22, classes=classes),
    }[name]
    return build().eval()


SHAPES = {"MLP": (1, 28, 28), "CNN": (1, 28, 28), "ResNet": (3, 32, 32)}
SAMPLES = {"MLP": 4000, "CNN": 1000, "ResNet": 300}


def data_for(name: str, samples: int | None = None) -> fp.LabelledData:
    """MNIST, and CIFAR-10 for the ResNet."""
    source = "uoft-cs/cifar10" if name == "ResNet" else "ylecun/mnist"
    return fp.load_data(source, split="train", limit=samples or SAMPLES[name])


def trained(name: str, seed: int = 0) -> tuple[nn.Module, fp.LabelledData]:
    """M, C or R trained to 100 % accuracy on its data (a BatchNorm network too)."""
    data = data_for(name)
    network = {
        "MLP": lambda: fp.models.mlp(SHAPES[name], seed=seed),
        "CNN": lambda: fp.models.thumwanit_cnn(SHAPES[name], seed=seed),
        "ResNet": lambda: fp.models.resnet(SHAPES[name], depth=22, seed=seed),
    }[name]()
    run = fp.train(network, data, until="interpolation", epochs=300, learning_rate=0.05, seed=seed, batch_size=64)
    return run.model, data


def bare_pass(model: nn.Module, data: fp.LabelledData) -> Callable[[], None]:
    """One plain forward pass over the data, in the batches and the memory layout that the probes use."""
    network = Network(model)
    size = network.batch_size(None)
    batches = [network.prepare(batch.inputs) for batch in data.batches(size)]
    if network.architecture == "convolutional":
        model = model.to(memory_format=torch.channels_last)

    def run() -> None:
        with torch.no_grad():
            for inputs in batches:
                model(inputs)

    return run
