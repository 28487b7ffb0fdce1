"""All-convolutional networks of T3: the builder, trainings that diverge, and the rules on tables made by hand."""

import math
from dataclasses import replace

import pandas as pd
import pytest
import torch

import flatprobe as fp
from analyses.study import Study
from analyses.theory3_2017 import all_convolutional, figure1, figure3, figure6, figure13, figure15, figure21
from analyses.theory3_2017.all_convolutional import Family, batch_normalized, errors, histories, polynomial

FAMILY = Family(
    epochs={20: 2}, channels=(2,), seeds=(0, 1), network=all_convolutional.QUICK_NETWORK, **all_convolutional.QUICK
)


def test_batch_normalized_adds_layers_to_the_plain_network() -> None:
    """Closed form: without the BatchNorms, whose initial eval mode divides by sqrt(1 + 1e-5), the logits are equal."""
    shape, arguments = (3, 32, 32), {"channels": 4, "classes": 10, "seed": 3}
    network = batch_normalized(shape, **arguments).eval()
    assert [type(layer).__name__ for layer in network][:3] == ["Conv2d", "BatchNorm2d", "ReLU"]
    for layer in network:
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.eps = 0.0
    images = torch.rand(2, *shape)
    assert torch.allclose(network(images), fp.models.all_convolutional(shape, **arguments)(images), atol=1e-6)


def test_experiments_share_keys_over_the_items() -> None:
    """Figs 1, 3, 4, 13 and 14 read one sweep."""
    keys = {experiment.key for experiment in figure1.PRESETS["cpu"].experiments()}
    assert keys > {experiment.key for experiment in figure13.PRESETS["cpu"].experiments()}
    wide = {e.key for e in figure3.PRESETS["cpu"].experiments() if e.network["channels"] == 16}
    assert len(wide) == 3
    assert wide < keys
    assert len({e.key for e in figure6.PRESETS["cpu"].experiments()} & keys) == 3


def test_polynomial_family_changes_network_and_rate_alone() -> None:
    first, second = (next(iter(family.experiments())) for family in (FAMILY, polynomial(FAMILY)))
    assert (first.data, first.seeds) == (second.data, second.seeds)
    assert second.network["activation"] == "polynomial"
    assert second.stages[0]["learning_rate"] == first.stages[0]["learning_rate"] / 2


def test_errors_and_histories_agree_and_keep_trainings_that_diverged(tmp_path) -> None:
    """Reference: the last epoch's training error is that of the network; a rate of 1e20 leaves a row of NaN."""
    study = Study(root=tmp_path)
    found = errors(study, FAMILY)
    assert found["weights"].eq(202).all()
    assert found["gap"].to_numpy() == pytest.approx((found["test_error"] - found["train_error"]).to_numpy())
    last = histories(study, FAMILY).groupby("seed").last()
    assert last["train_by_epoch"].to_numpy() == pytest.approx(found["train_error"].to_numpy())
    assert last["loss_by_epoch"].to_numpy() == pytest.approx(found["train_loss"].to_numpy())
    both = errors(study, FAMILY, replace(FAMILY, learning_rate=1e20, seeds=(2,)))
    assert both.set_index("seed")["train_error"].isna().to_dict() == {0: False, 1: False, 2: True}


def test_errors_raise_for_another_failure(tmp_path) -> None:
    broken = replace(FAMILY, training={"optimizer": {"name": "sgdl", "noise": -1.0}})
    with pytest.raises(RuntimeError, match="failed"):
        errors(Study(root=tmp_path), broken)


def frame(cells: list[dict], *, change: float = 1e-3) -> pd.DataFrame:
    """Three seeds of each cell, whose errors differ by a small change."""
    rows = [
        {
            "labels": "natural",
            "activation": "relu",
            "noise": 0.0,
            "k": 8,
            "epochs": 80,
            "batch_norm": True,
            "weights": 9898,
            "train_loss": 0.1,
        }
        | cell
        | {"seed": seed, "test_error": cell["test_error"] + change * seed}
        for cell in cells
        for seed in range(3)
    ]
    found = pd.DataFrame(rows)
    return found.assign(gap=found["test_error"] - found["train_error"])


def holds(outcomes: list) -> list[bool | None]:
    return [outcome.holds for outcome in outcomes if not outcome.beside]


def test_rules_against_samples() -> None:
    """A table like the paper's figure holds; a training error at n << W, or a growing gap, does not."""
    sizes = (500, 1000, 5000, 10000)
    like = [{"n": n, "train_error": 0.2 if n == 10000 else 0.0, "test_error": 0.7 - n / 1e5} for n in sizes]
    assert holds(figure1.rules(frame(like))) == [True] * 5
    like[0]["train_error"], like[-1]["train_error"] = 0.1, 0.0
    assert holds(figure1.rules(frame(like))) == [True, False, True, False, True]
    random = [{"n": n, "train_error": t, "test_error": 0.9} for n, t in zip(sizes, (0, 0.001, 0.2, 0.5), strict=True)]
    assert holds(figure1.scrambled_rules(frame(random))) == [True] * 4
    random[0]["test_error"] = 0.8
    assert holds(figure1.scrambled_rules(frame(random))) == [True, True, True, False]
    assert holds(figure1.scrambled_rules(frame(random[:2]))) == [True, None, None, False]


def test_rules_against_weights() -> None:
    cells = [
        {"n": 1000, "weights": w, "train_error": t, "test_error": e}
        for w, t, e in ((250, 0.6, 0.8), (2650, 0.0, 0.7), (9898, 0.0, 0.6))
    ]
    assert holds(figure3.rules(frame(cells))) == [True, True, True]
    assert holds(figure3.boundary(frame(cells))) == [False]
    cells[1]["train_error"], cells[2]["test_error"] = 0.2, 0.75
    assert holds(figure3.rules(frame(cells))) == [False, True, False]
    assert holds(figure3.boundary(frame(cells))) == [True]
    assert holds(figure15.rules(frame(cells))) == [False]


def test_rules_of_noise_epochs_and_activations() -> None:
    cells = [
        {"n": 1000, "noise": s, "train_error": 0.0, "test_error": e} for s, e in ((0, 0.6), (3e-4, 0.5), (1e-3, 0.7))
    ]
    by_noise = frame(cells)
    assert holds(figure6.rules(by_noise)) == [True, True]
    by_noise.loc[by_noise["noise"] == 3e-4, "train_loss"] = 0.3
    assert holds(figure6.rules(by_noise)) == [False, True]

    cells = [(n, k) for n in (500, 1000) for k in (4, 8)]
    tests = [0.7 - n / 1e4 - k / 1e3 for n, k in cells]
    widths = [
        {"n": n, "k": k, "weights": k, "train_error": 0.0, "test_error": test}
        for (n, k), test in zip(cells, tests, strict=True)
    ]
    curves = frame(widths).assign(epoch=1, validation_by_epoch=0.5)
    assert holds(figure13.larger_rules(curves)) == [None, None, True, True]  # two n order themselves by chance
    curves["gap"] += curves["k"] / 10
    assert holds(figure13.larger_rules(curves)) == [None, None, False, False]

    kinds = [
        {"n": 500, "activation": a, "train_error": 0.0, "test_error": e}
        for a, e in (("relu", 0.6), ("polynomial", 0.7))
    ]
    assert holds(figure21.rules(frame(kinds))) == [True, False]
    lost = frame(kinds)
    lost.loc[(lost["activation"] == "polynomial") & (lost["seed"] == 1), ["train_error", "test_error"]] = math.nan
    assert [outcome.seeds for outcome in figure21.rules(lost)][:-1] == [2] * 4
