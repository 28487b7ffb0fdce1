"""The rules of Sokolic et al. (2017) on tables with known answers."""

from itertools import product

import pandas as pd
import pytest
import torch

from analyses.sokolic2017 import covering, figure2, figure3, figure4, weight_normalised
from analyses.sokolic2017.weight_normalised import ALL, NONE


def networks(**values: object) -> pd.DataFrame:
    """Two draws of depths 2, 3, 4 and widths 10, 20, and a control; a column per function of (L, M, draw)."""
    cells = [*product((2, 3, 4), (10, 20), (0, 1), (ALL,)), *product((2, 3, 4), (10,), (0, 1), (NONE,))]
    frame = pd.DataFrame(cells, columns=["L", "M", "draw", "normalised"])
    return frame.assign(**{name: frame.apply(value, axis=1) for name, value in values.items()})


def test_a_trend_is_taken_at_fixed_width_or_depth_closed_form() -> None:
    # y falls with the depth at each width, though the width moves it ten times as far.
    frame = networks(y=lambda cell: 10 * cell["M"] - cell["L"])
    falls = weight_normalised.monotone("falls", frame, "L", "y", rising=False)
    assert (falls.effect, falls.interval, falls.holds, falls.seeds) == (
        pytest.approx(1),
        pytest.approx((1, 1)),
        True,
        2,
    )
    assert weight_normalised.monotone("rises", frame, "L", "y").holds is False
    assert weight_normalised.monotone("rises", frame, "M", "y").effect == pytest.approx(1)
    control = weight_normalised.monotone("rises", frame, "L", "y", normalised=NONE)
    assert (control.effect, control.holds) == (pytest.approx(-1), False)


def test_a_constant_has_no_trend_closed_form() -> None:
    found = weight_normalised.monotone("rises", networks(y=lambda _: 1.0), "L", "y")
    assert (found.effect, found.holds) == (0.0, None)


def test_ends_are_differences_of_complete_cells_closed_form() -> None:
    frame = networks(y=lambda cell: cell["L"] ** 2 + cell["M"] + cell["draw"])
    assert weight_normalised.ends(frame, "L", "y").tolist() == [12.0, 12.0]
    assert weight_normalised.ends(frame, "M", "y").tolist() == [10.0, 10.0]
    # A width that is not there at every depth is left out.
    wider = frame[(frame["L"] == 2) & (frame["M"] == 20)].assign(M=40, y=1000.0)
    assert weight_normalised.ends(pd.concat([frame, wider]), "M", "y").tolist() == [10.0, 10.0]


def test_settings_are_read_back_from_the_experiments() -> None:
    settings = weight_normalised.PRESETS["cpu"]
    rows = pd.DataFrame([experiment.flat() for experiment in settings.networks()])
    found = weight_normalised.describe(rows).drop_duplicates()
    kinds = found.groupby("normalised")[["L", "M"]].apply(
        lambda part: sorted(set(zip(part["L"], part["M"], strict=True)))
    )
    assert len(found) == len(rows)
    assert kinds[ALL] == sorted((L, M) for L, widths in settings.widths.items() for M in widths)
    for control in settings.controls:
        assert kinds[control] == [(L, settings.control_width) for L in settings.widths]


def test_full_training_accuracy_may_fail_in_the_smallest_network_alone() -> None:
    full = networks(**{name: lambda _: 100.0 for name in ("train accuracy", "test accuracy")})
    name = "training accuracy is 100 % but for the smallest network"

    def verdict(frame: pd.DataFrame) -> bool | None:
        return next(outcome for outcome in figure4.accuracy(frame) if outcome.rule == name).holds

    smallest = (full["L"] == 2) & (full["M"] == 10)
    assert verdict(full.assign(**{"train accuracy": 100.0 - smallest})) is True
    assert verdict(full.assign(**{"train accuracy": 100.0 - ((full["L"] == 3) & (full["M"] == 10))})) is False


def test_the_widths_of_the_source_are_judged_and_others_stand_beside() -> None:
    frame = networks(y=lambda cell: -cell["L"])
    wide = frame[frame["M"] == 20].assign(M=784, y=frame["L"])
    assert set(figure4.of_source(frame)["M"]) == {10, 20}
    whole = pd.concat([frame, wide])
    assert set(figure4.of_source(whole)["M"]) == {784}
    beside = {outcome.rule: outcome.holds for outcome in figure4.elsewhere("rises", whole, "y")}
    assert beside == {f"rises, {kind} normalised, M = {M}": False for kind, M in ((ALL, 10), (ALL, 20), (NONE, 10))}


def trainings(error: dict[tuple[int, str], float]) -> pd.DataFrame:
    """Final rows at L = 4 of two draws by (n, method), the second draw 0.001 worse."""
    rows = [
        {
            "n": n,
            "L": 4,
            "method": method,
            "strength": 1.0,
            "draw": draw,
            "stage": "final",
            "test error": e + draw / 1000,
        }
        for (n, method), e in error.items()
        for draw in range(2)
    ]
    return pd.DataFrame(rows)


@pytest.mark.parametrize(("error", "par"), [(0.1029, True), (0.1031, False)])
def test_on_par_means_at_most_three_tenths_of_a_point_behind_closed_form(error: float, par: bool) -> None:
    regularized, decay = figure3.METHODS
    frame = trainings({(400, regularized): error, (400, decay): 0.2, (1000, regularized): 0.09, (1000, decay): 0.1})
    found = {outcome.rule: outcome for outcome in figure3.rules(frame)}
    on_par = found["at L = 4 the regularizer at n = 400 is on par with weight decay at 1000"]
    assert on_par.effect == pytest.approx(100 * (0.1 - error))
    assert on_par.holds is par
    ahead = found["the Jacobian regularizer is ahead of weight decay at n = 1000, L = 4"]
    assert (ahead.effect, ahead.holds) == (pytest.approx(1.0), True)
    assert found["the lead is larger at n = 400 than at n = 1000, averaged over the depths"].holds is True


def test_discordant_pairs_are_counted_closed_form() -> None:
    part = pd.DataFrame({"input distance": [1.0, 2.0, 3.0], "output distance": [1.0, 3.0, 2.0]})
    assert figure2.discordant(part) == pytest.approx(1 / 3)


def test_moons_are_two_classes_and_differ_by_split() -> None:
    train, test = (figure2.moons(split=split, noise=0.0, total=100) for split in ("train", "test"))
    assert train.labels.bincount().tolist() == [50, 50]
    centers = torch.where(train.labels[:, None] == 0, torch.zeros(2), torch.tensor([1.0, 0.5]))
    assert torch.allclose((train.inputs - centers).norm(dim=1), torch.ones(100), atol=1e-6)
    assert not torch.equal(train.inputs, test.inputs)


def test_a_greedy_cover_counts_balls_closed_form() -> None:
    line = torch.arange(10, dtype=torch.float64)[:, None]
    assert [covering.balls(line, radius) for radius in (0.5, 1.0, 2.0, 100.0)] == [10, 5, 4, 1]
