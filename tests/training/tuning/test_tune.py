"""tune: ridge regression (closed form), the choice (closed form), what decides and what does not (properties)."""

import math

import numpy as np
import pytest
import torch
from torch import nn

import flatprobe as fp
from flatprobe.data import LabelledData
from flatprobe.models import mlp
from flatprobe.training.loop import train
from flatprobe.training.tuning import tune as module
from flatprobe.training.tuning.grid import varying
from flatprobe.training.tuning.result import best_strength
from flatprobe.training.tuning.tune import split, tune
from flatprobe.utils.rng import generator, permutation
from tests.helpers.properties import assert_same_state
from tests.helpers.small_data import clusters

N, FEATURES, CLASSES = 50, 8, 3


def noisy_samples(count: int = N, key: str = "ridge") -> LabelledData:
    """Labels that a linear function gives, a third of them replaced: weight decay helps."""
    inputs = torch.randn(count, FEATURES, generator=generator(key), dtype=torch.float64)
    truth = torch.randn(FEATURES, CLASSES, generator=generator("truth"), dtype=torch.float64)
    return LabelledData(inputs, (inputs @ truth).argmax(1), classes=CLASSES).with_random_labels(0.33, seed=1)


def linear(seed: int = 0) -> nn.Module:
    return mlp((FEATURES,), widths=(), classes=CLASSES, seed=seed).double()


def ridge(data: LabelledData, strength: float) -> np.ndarray:
    """argmin of (1/n) ||X W - Y||^2 + (d/2) (||W||^2 + ||b||^2), with the biases as the last row."""
    X = np.c_[data.inputs.numpy(), np.ones(len(data))]
    gram = 2 / len(data) * X.T @ X + strength * np.eye(FEATURES + 1)
    return np.linalg.solve(gram, 2 / len(data) * X.T @ np.eye(CLASSES)[data.labels.numpy()])


def squared_loss(data: LabelledData, W: np.ndarray) -> tuple[float, float]:
    logits = np.c_[data.inputs.numpy(), np.ones(len(data))] @ W
    wrong = logits.argmax(1) != data.labels.numpy()
    return float(((logits - np.eye(CLASSES)[data.labels.numpy()]) ** 2).sum(1).mean()), float(wrong.mean())


RIDGE = {"objective": "squared", "learning_rate": 0.2, "momentum": 0.5, "epochs": 70, "batch_size": N}


def test_ridge_closed_form() -> None:
    data, test, strengths, seeds = noisy_samples(), noisy_samples(200, "test"), [0.0, 0.1, 0.3, 1.0, 3.0], [3, 4]
    settings = RIDGE | {"setting": "weight_decay", "strengths": strengths[::-1], "seeds": seeds, "test": test}
    tuning = tune(linear(), data, **settings)
    expected = {}
    for seed in seeds:
        order = permutation(N, seed, "validation")
        held, rest = (LabelledData(*data.gather(part), classes=CLASSES) for part in (order[:10], order[10:]))
        for strength in strengths:
            expected[strength, seed] = squared_loss(held, ridge(rest, strength))
    assert [(row["strength"], row["seed"]) for row in tuning.table] == [(d, s) for s in seeds for d in strengths]
    for row in tuning.table:
        loss, error = expected[row["strength"], row["seed"]]
        assert row["validation_loss"] == pytest.approx(loss, rel=1e-6)  # what 70 steps leave of the distance
        assert row["validation_error"] == pytest.approx(error)
    means = {strength: np.mean([expected[strength, seed][0] for seed in seeds]) for strength in strengths}
    best = min(means, key=means.get)
    assert 0 < best < 3
    assert (tuning.strength, tuning.at_edge) == (best, False)
    for run, loss, error in zip(tuning.runs, tuning.test_loss, tuning.test_error, strict=True):
        W = ridge(data, best)
        assert (loss, error) == pytest.approx(squared_loss(test, W), rel=1e-6)
        learned = [parameter.detach().numpy() for parameter in run.model.parameters()]
        np.testing.assert_allclose(np.c_[learned[0], learned[1]].T, W, atol=1e-6)
    frame = tuning.means().set_index("strength")
    assert frame["validation_loss"][best] == pytest.approx(means[best], rel=1e-6)
    spread = np.std([expected[best, seed][0] for seed in seeds], ddof=1)
    assert frame["validation_loss_std"][best] == pytest.approx(spread, rel=1e-5)
    summary = tuning.summary()
    assert summary["test_error"] == pytest.approx(np.mean(tuning.test_error))
    assert summary["validation_loss"] == pytest.approx(means[best], rel=1e-6)


QUICK = {"epochs": 2, "batch_size": 16, "setting": "weight_decay", "strengths": (0.01, 0.1), "seeds": (0, 1)}


def test_slow_reference_by_error_and_with_validation_data_of_its_own() -> None:
    data, held = clusters(), clusters(11, key="validation")
    tuning = tune(mlp((4,), classes=3), data, validation=held, criterion="error", **QUICK)
    for row in tuning.table:
        run = train(mlp((4,), classes=3), data, epochs=2, batch_size=16, weight_decay=row["strength"], seed=row["seed"])
        risk = fp.EmpiricalRisk(run.model, held)()
        assert (row["validation_loss"], row["validation_error"]) == pytest.approx((risk.loss, risk.error))
    assert tuning.strength == best_strength(tuning.table, "error")
    assert set(tuning.summary()) == {"strength", "validation_error"}
    assert math.isnan(tuning.test_error[0])


def rows(losses, errors=None):
    """Two seeds at each of the strengths 0, 1, 2, ..."""
    return [
        {"strength": float(k // 2), "seed": k % 2, "validation_loss": loss, "validation_error": error}
        for k, (loss, error) in enumerate(zip(losses, errors or losses, strict=True))
    ]


def test_the_best_closed_form() -> None:
    assert (
        best_strength(rows([3, 3, 0, 5, 4, 0.5]), "loss") == 2
    )  # means 3, 2.5, 2.25: not that of the lowest single one
    assert best_strength(rows([3, 3, 2, 2, 2, 2]), "loss") == 1  # of equals the smallest
    assert best_strength(rows([3, 3, math.nan, 0, math.inf, 0]), "loss") == 0
    assert best_strength(rows([1, 1, 2, 2], [0.5, 0.5, 0.25, 0.25]), "error") == 1
    with pytest.raises(
        RuntimeError, match=r"each of 0.0, 1.0 has a run that diverged or whose validation loss is not finite. Lower"
    ):
        best_strength(rows([math.nan, 1, math.inf, 1]), "loss")


class Watched(LabelledData):
    """Notes every reading of its samples."""

    read: list[str]

    def batches(self, batch_size):
        self.read.append("test")
        return super().batches(batch_size)

    def gather(self, positions):
        self.read.append("test")
        return super().gather(positions)


def test_property_the_test_set_is_looked_at_once_for_each_final_run_after_everything_else(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    log = []

    def watched_train(network, data, **settings):
        log.append("train")
        return train(network, data, **settings)

    measured = []

    def watched_risk(model, *args):
        measured.append(model)
        return fp.EmpiricalRisk(model, *args)

    monkeypatch.setattr(module, "train", watched_train)
    monkeypatch.setattr(module, "EmpiricalRisk", watched_risk)
    plain = clusters(20, key="test")
    test = Watched(plain.inputs, plain.labels, classes=3)
    test.read = log
    tuning = tune(mlp((4,), classes=3), clusters(), test=test, **QUICK)
    assert log[:6] == ["train"] * 6
    assert {*log[6:]} == {"test"}
    assert measured == [run.model for run in tuning.runs]
    for run, loss, error in zip(tuning.runs, tuning.test_loss, tuning.test_error, strict=True):
        risk = fp.EmpiricalRisk(run.model, plain)()
        assert (loss, error) == pytest.approx((risk.loss, risk.error))
    assert tuning.summary()["test_loss_std"] == pytest.approx(np.std(tuning.test_loss, ddof=1))
    assert tuning.summary()["test_loss_std"] > 0
    other = tune(mlp((4,), classes=3), clusters(), test=plain.with_random_labels(seed=2), **QUICK)
    assert other.table == tuning.table
    assert other.test_error != tuning.test_error


def test_property_seeds_decide_split_order_and_with_a_function_the_initial_weights() -> None:
    data = clusters()
    first, again = (tune(mlp((4,), classes=3), data, **QUICK) for _ in range(2))
    assert_same_table(first, again)
    assert_same_state(first.runs[0].model, again.runs[0].model)
    given = [run.settings["network"]["initial_weights"] for run in first.runs]
    assert given[0] == given[1]
    made = tune(lambda seed: mlp((4,), classes=3, seed=seed), data, **QUICK).runs
    assert len({run.settings["network"]["initial_weights"] for run in made}) == 2
    expected = train(mlp((4,), classes=3, seed=1), data, seed=1, epochs=2, batch_size=16, weight_decay=first.strength)
    assert made[1].settings["settings"]["weight_decay"] == first.strength
    assert_same_state(made[1].model, expected.model)


def test_slow_reference_the_search_of_a_seed_is_on_its_own_training_set() -> None:
    sets = {seed: clusters(60, key=f"set {seed}") for seed in (0, 1)}
    both = tune(mlp((4,), classes=3), sets.__getitem__, **QUICK).to_frame()
    for seed, data in sets.items():
        alone = tune(mlp((4,), classes=3), data, **{**QUICK, "seeds": (seed,)}).to_frame()
        kept = (frame[(frame["stage"] == "search") & (frame["seed"] == seed)] for frame in (both, alone))
        first, second = (part["validation_loss"].tolist() for part in kept)
        assert first == second


def assert_same_table(one, other):
    import pandas as pd

    pd.testing.assert_frame_equal(one.to_frame(), other.to_frame())


@pytest.mark.parametrize("streamed", [False, True])
def test_property_the_split_is_a_partition_and_a_function_of_the_seed(streamed: bool) -> None:
    data = clusters()
    whole = data.inputs
    if streamed:
        data = LabelledData.from_dataset([(x, int(y)) for x, y in zip(whole, data.labels, strict=True)])
    rest, held = split(data, 0.2, 0)
    assert (len(rest), len(held)) == (30, 7)
    assert rest.classes == held.classes == 3
    parts = [next(part.batches(100)) for part in (rest, held)]
    order = permutation(37, 0, "validation")
    positions = torch.cat([order[7:].sort().values, order[:7].sort().values])
    assert torch.equal(torch.cat([part.inputs for part in parts]), whole[positions])
    assert torch.equal(torch.cat([part.labels for part in parts]), data.labels[positions])
    assert held.source["validation"] == {"fraction": 0.2, "seed": 0}
    assert split(data, 0.2, 0)[1].fingerprint == held.fingerprint
    assert split(data, 0.2, 1)[1].fingerprint != held.fingerprint


def test_property_a_strength_that_diverges_is_the_worst_and_ends_nothing() -> None:
    settings = QUICK | {"setting": "learning_rate", "strengths": (0.05, 1e30), "objective": "squared", "epochs": 4}
    tuning = tune(mlp((4,), classes=3), clusters(), **settings)
    assert tuning.strength == 0.05
    assert [row["diverged"] for row in tuning.table] == [False, True, False, True]
    assert all(math.isnan(row["validation_loss"]) for row in tuning.table if row["diverged"])
    frame = tuning.means()
    assert list(frame["diverged"]) == [0, 2]
    assert frame["validation_loss"].isna().tolist() == [False, True]
    assert tuning.at_edge  # 0.05 is the smallest
    with pytest.raises(RuntimeError, match="no strength trained with all of its seeds"):
        tune(mlp((4,), classes=3), clusters(), **settings | {"strengths": (1e29, 1e30)})


def test_other_errors_are_not_taken_for_divergence(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*args, **kwargs):
        msg = "out of memory"
        raise RuntimeError(msg)

    monkeypatch.setattr(module, "train", broken)
    with pytest.raises(RuntimeError, match="out of memory"):
        tune(mlp((4,), classes=3), clusters(), **QUICK)


def test_property_an_unmet_rule_is_flagged_in_the_search_and_an_error_in_the_end() -> None:
    settings = QUICK | {"until": "loss", "target_loss": 1e-6}
    tuning = tune(mlp((4,), classes=3), clusters(), on_failure="flag", **settings)
    assert not any(row["reached"] for row in tuning.rows)
    with pytest.raises(RuntimeError, match="did not reach a training loss of 1e-06"):
        tune(mlp((4,), classes=3), clusters(), **settings)


def test_property_a_function_of_the_strength() -> None:
    def smoothed(strength):
        return {"objective": {"name": "smoothed_maximum", "epsilon": strength}}

    tuning = tune(mlp((4,), classes=3), clusters(), **QUICK | {"setting": smoothed, "strengths": (0.5, 1.0)})
    assert tuning.runs[0].settings["settings"]["objective"]["epsilon"] == tuning.strength
    assert tuning.settings["arguments"]["setting"].endswith("smoothed")


def test_closed_form_a_penalty_stands_beside_the_others_and_is_left_out_at_strength_zero() -> None:
    mine, other = object(), (0.5, "other")
    vary = varying(None, mine, {"penalties": [other]})
    assert vary(0.1) == {"penalties": [other, (0.1, mine)]}
    assert vary(0.0) == {"penalties": [other]}
    assert varying(None, mine, {})(2.0) == {"penalties": [(2.0, mine)]}


def test_slow_reference_a_penalty_is_what_train_is_given() -> None:
    data, penalty = clusters(), fp.penalties.JacobianFrobenius()
    settings = {"epochs": 2, "batch_size": 16}
    tuning = tune(mlp((4,), classes=3), data, penalty=penalty, strengths=(0, 0.1), seeds=(0, 1), **settings)
    plain = train(mlp((4,), classes=3), split(data, 0.2, 1)[0], seed=1, **settings)
    assert next(row for row in tuning.table if row["seed"] == 1)["train_loss"] == plain.history[-1]["train_loss"]
    own = [(tuning.strength, penalty)] if tuning.strength else []
    assert_same_state(tuning.runs[1].model, train(mlp((4,), classes=3), data, seed=1, penalties=own, **settings).model)
    assert tuning.settings["arguments"]["penalty"] == {
        "name": "jacobian_frobenius",
        "projections": None,
        "outputs": "logits",
    }


def test_slow_reference_a_training_set_per_seed() -> None:
    """Each seed is searched and trained as by a call with its own data alone, but for the strength of all."""
    pool, calls = noisy_samples(120), []

    def drawn(seed: int) -> LabelledData:
        calls.append(seed)
        return pool.balanced(8, seed)

    settings = {"setting": "weight_decay", "strengths": (0.01, 0.5), "epochs": 3, "learning_rate": 0.1}
    network = nn.Linear(FEATURES, CLASSES).double()
    tuning = tune(network, drawn, seeds=(4, 2), **settings)
    assert calls == [4, 2]
    for seed in (4, 2):
        alone = tune(network, pool.balanced(8, seed), seeds=(seed,), **settings)
        for row, expected in zip((row for row in tuning.table if row["seed"] == seed), alone.table, strict=True):
            assert row == pytest.approx(expected, nan_ok=True)
        own = tuning.settings["subject"]["data"][str(seed)]
        assert own == pool.balanced(8, seed).describe()
    with pytest.raises(TypeError, match="LabelledData"):
        tune(network, lambda _seed: [], **settings)  # type: ignore[return-value] # refused
