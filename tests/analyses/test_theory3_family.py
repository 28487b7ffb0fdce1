"""The figures and tables of Poggio et al. (2017) on one family of networks, on tables made by hand."""

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

import flatprobe as fp
from analyses.theory3_2017 import family, figure5, figure11, figure17, figure20, table1_cifar10, table2


def landscape(labels: str, radius: float, draw: int) -> pd.DataFrame:
    """Accuracy 1 up to a distance from the nearest minimum, 0.5 beyond."""
    points = fp.simplex(3, steps=20).numpy()
    far = 1 - points.max(axis=1) > radius + 1e-9
    cell = {
        "data": "mnist",
        "samples": 1000,
        "minima": "different",
        "stage": family.INTERPOLATED,
        "scale": 1,
        "labels": labels,
    }
    frame = pd.DataFrame(points, columns=figure11.COORDINATES).assign(loss=far * 2.0, error=far * 0.5)
    return frame.assign(**cell, draw=draw)


def test_the_share_of_a_flat_landscape_is_its_area_closed_form() -> None:
    found = figure11.figures(landscape("natural", 0.2, 0))
    inside = 3 * sum(range(1, 6))  # three corners, of distances 0, 0.05, ..., 0.2 with 1, 2, ..., 5 points
    assert found["share above 0.9"] == pytest.approx(inside / 231)
    assert found["mean accuracy"] == pytest.approx(0.5 + 0.5 * inside / 231)
    assert found["accuracy at distance 0.2"] == 1
    assert found["accuracy at distance 0.3"] == 0.5
    assert found["loss barrier"] == 2


def test_wider_wells_hold_and_narrower_ones_are_refuted() -> None:
    draws = [(0.2, 0.1), (0.25, 0.1), (0.3, 0.15)]
    parts = [landscape(name, r, k) for k, pair in enumerate(draws) for name, r in zip(family.LABELS, pair, strict=True)]
    frame = pd.concat(parts)
    rule = "share above 0.9, natural - random labels: x1, different initial weights"
    found = {outcome.rule: outcome for outcome in figure11.rules(frame, "mnist")}[rule]
    assert found.holds
    assert not found.beside
    assert found.seeds == 3
    reversed_ = frame.assign(labels=frame["labels"].map({"natural": "random", "random": "natural"}))
    assert not {outcome.rule: outcome for outcome in figure11.rules(reversed_, "mnist")}[rule].holds


def test_pairs_average_within_a_draw_closed_form() -> None:
    frame = pd.DataFrame(
        {"labels": ["natural", "natural", "random", "random"], "draw": 0, "scale": [1, 1, 1, 10], "value": [1, 3, 5, 9]}
    )
    natural, random = family.pairs(frame, "value", scale=1)
    assert natural.tolist() == [2]
    assert random.tolist() == [5]


def test_networks_of_a_family_share_data_and_weights_between_labels() -> None:
    networks = family.MNIST["quick"].networks([(0, 0), (1, 1)])
    assert len({network.key for network in networks}) == len(networks) == 2 * 2 * family.MNIST["quick"].draws * 2
    natural, random = (
        next(n for n in networks if n.data["random_labels"] == fraction and n.seeds["order"] == 1)
        for fraction in family.LABELS.values()
    )
    assert torch.equal(natural.load().head(5).inputs, random.load().head(5).inputs)
    for one, other in zip(natural.build().parameters(), random.build().parameters(), strict=True):
        assert torch.equal(one, other)


def test_the_noise_histogram_counts_every_component_closed_form() -> None:
    data = fp.LabelledData(torch.randn(20, 3, generator=torch.Generator().manual_seed(0)), torch.arange(20) % 2)
    network = nn.Linear(3, 2).eval()
    found = figure5.noise(network, data, batch_size=4, draws=50, components=6)
    assert found["share"].sum() == pytest.approx(1)
    middle = (found["from"] + found["to"]) / 2
    assert (found["share"] * middle**2).sum() == pytest.approx(1, abs=0.05)  # the standard deviation is the unit
    assert found["mean_kurtosis"].nunique() == 1


def test_the_noise_of_an_image_is_that_of_its_levels_property() -> None:
    frame = figure20.pixels(figure20.Picture(data="digits", crop=None), None)
    assert all(outcome.holds for outcome in figure20.pixel_rules(frame))
    wrong = frame.assign(value=frame["value"].where(frame["gamma"] == 0, 2 * frame["value"]))
    assert not all(outcome.holds for outcome in figure20.pixel_rules(wrong))


def test_margins_follow_from_the_quantiles_closed_form() -> None:
    rows = [
        {"data": "cifar", "labels": labels, "scale": scale, "draw": draw, "stage": family.INTERPOLATED,
         "margin 0.5": margin * (1 + 0.01 * draw), "l2": norm * (1 + 0.02 * draw), "product": product}
        for draw in range(3)
        for labels, scale, margin, norm, product in (
            ("natural", 1, 4.0, 10.0, 2.0), ("random", 1, 2.0, 20.0, 4.0),
            ("natural", 10, 8.0, 100.0, 80.0), ("random", 10, 2.0, 100.0, 160.0),
        )
    ]  # fmt: skip
    found = {outcome.rule: outcome for outcome in figure17.rules(pd.DataFrame(rows))}
    assert found["median margin: natural over random labels, x1"].effect == pytest.approx(2)
    assert found["l2 norm: random over natural labels, x1"].holds
    assert found["median margin: x1 over x10, natural labels"].holds is False
    divided = found["median margin over product of spectral norms: x1 over x10, natural labels"]
    assert divided.effect == pytest.approx(20)
    assert divided.beside


def test_printed_ratios_are_those_of_table_1_closed_form() -> None:
    ratio = table1_cifar10.printed("cifar", ("all", "natural"), ("all", "random"))
    assert ratio == pytest.approx(2.98, abs=0.005)
    assert table1_cifar10.printed("mnist", ("all", "natural"), ("all", "random")) == pytest.approx(6.58, abs=0.005)


def test_parameters_are_as_printed_pinned() -> None:
    found = table2.counts().set_index("network")["parameters"]
    assert found.to_dict() == {name: size for name, (size, _, _) in table2.PUBLISHED.items()}
    assert np.all(np.diff([size for size, _, _ in table2.PUBLISHED.values()]) > 0)
