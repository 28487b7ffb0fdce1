"""Poggio et al. (2017), sections 2.2 and 8.4: weights on a torus train as weights in space do."""

import math
from collections.abc import Sequence
from functools import partial

import pandas as pd
import torch
from torch import nn

import flatprobe as fp
from analyses.reproduction import Outcome, Reproduction

SAME = "weights on the torus end as those in space, bit for bit (largest difference)"
BOXED = "so do weights in the box of its size: no step leaves it (largest difference)"


@torch.no_grad()
def wrap(module: nn.Module, _layers: Sequence[object]) -> None:
    """The torus [-pi, pi): weights beyond an end come back at the other."""
    for value in module.parameters():
        beyond = value.abs() > math.pi
        value[beyond] = torch.remainder(value[beyond] + math.pi, 2 * math.pi) - math.pi


def table(settings: dict) -> pd.DataFrame:
    """One row per initial scale, seed, labels and domain."""
    rows = []
    whole = fp.load_data(settings["data"], split="train", limit=settings["samples"])
    for scale in settings["scales"]:
        for seed in range(settings["seeds"]):
            for labels in ("natural", "random"):
                data = whole if labels == "natural" else whole.with_random_labels(seed=seed)
                network = fp.models.mlp(data.input_shape, classes=data.classes, widths=[settings["width"]], seed=seed)
                train = partial(
                    fp.train, fp.models.scaled(network, scale), data, epochs=settings["epochs"],
                    learning_rate=settings["learning_rate"], seed=seed,
                )  # fmt: skip
                domains = {
                    "space": train().model,
                    "box": train(constraints=[fp.constraints.Box(-math.pi, math.pi)]).model,
                    "torus": train(constraints=[wrap]).model,
                }
                space = nn.utils.parameters_to_vector(domains["space"].parameters()).detach()
                for domain, model in domains.items():
                    own = nn.utils.parameters_to_vector(model.parameters()).detach()
                    rows.append(
                        {
                            "scale": scale, "seed": seed, "labels": labels, "domain": domain,
                            "largest": float(own.abs().max()), "difference": float((own - space).abs().max()),
                            "error": fp.EmpiricalRisk(model, data)().error,
                        }
                    )  # fmt: skip
    return pd.DataFrame(rows)


def rules(frame: pd.DataFrame) -> Sequence[Outcome]:
    """Equality of the end points, and the room that the weights left."""
    runs = len(frame) // 3
    return [
        Outcome(rule=rule, holds=bool((frame.loc[frame["domain"] == domain, "difference"] == 0).all()), seeds=runs,
                effect=float(frame.loc[frame["domain"] == domain, "difference"].max()))
        for domain, rule in (("torus", SAME), ("box", BOXED))
    ] + [
        Outcome(rule="the largest weight at the end", holds=None, effect=float(frame["largest"].max()), seeds=runs,
                beside=True),
    ]  # fmt: skip


SETTINGS = {"data": "digits", "samples": 300, "width": 16, "scales": (1.0,), "seeds": 1, "epochs": 10}
REPRODUCTION = Reproduction(
    id="T3-torus",
    source="Poggio et al. (2017), sections 2.2 and 8.4",
    claim="Simulations remain essentially unchanged if the domain of the weights is a torus, because the weights "
    "remain bounded.",
    presets={
        "quick": SETTINGS | {"learning_rate": 0.1},
        "cpu": {
            "data": "ylecun/mnist", "samples": 1000, "width": 512, "scales": (1.0, 10.0), "seeds": 3, "epochs": 20,
            "learning_rate": 0.01,
        },
        "paper": {
            "data": "uoft-cs/cifar10", "samples": 50_000, "width": 512, "scales": (1.0, 10.0), "seeds": 3,
            "epochs": 100, "learning_rate": 0.01,
        },
    },
    table=lambda settings, _study: table(settings),
    rules=rules,
    differs="The source states neither the size of the torus nor the networks; section 9.6.1 has weights between -pi "
    "and pi. Networks have one hidden layer of 512 units, on 1,000 samples of MNIST with natural and with random "
    "labels, from initial weights x1 and x10. A box of the same size is trained beside the torus.",
    cost="1 min",
)  # fmt: skip
