"""Several points at once: against one by one (slow reference), who is not stacked, the host's waits."""

from collections.abc import Iterable

import pytest
import torch
from torch import Tensor, nn

import flatprobe as fp
from flatprobe.network.batch_sizes import bytes_per_sample
from flatprobe.network.weights import Weights, combine, norm
from flatprobe.probes import flatness
from flatprobe.risk import lockstep
from flatprobe.risk.directions import direction
from flatprobe.risk.empirical import along
from flatprobe.risk.lockstep import points_at_once, risks_along, risks_at
from flatprobe.utils.first_exit import first_exit
from tests.helpers import elsewhere, strange
from tests.helpers.cases import Bowl, batch, normalised_network
from tests.helpers.elsewhere import Elsewhere
from tests.helpers.properties import assert_model_untouched
from tests.helpers.strange_modules import Nested

ROUNDING = 1e-12  # of float64 sums in another order

# Networks that run at one point at a time: a pass leaves traces, or torch has no rule for an operation.
ALONE = {
    "spectral norm by a hook", "weight norm by a hook", "hook that keeps", "counts", "caches", "keeps",
    "recurrent", "weight norm", "pruned", "encoder",
}  # fmt: skip


@pytest.fixture
def forced(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lockstep on a CPU, of every architecture."""
    monkeypatch.setattr(lockstep, "pays", lambda *_: True)


def points_of(risk: fp.EmpiricalRisk, count: int = 3) -> list[Weights]:
    """Points of other weights and buffers, some of which lack names."""
    own = {**risk.center, **risk.buffers}
    names = list(risk.center)
    units = [direction(risk.center, tuple(names), "isotropic", 0, k, {}) for k in range(count)]
    moved = [combine([own, u], (1.0, 0.2)) for u in units]
    moved[0].pop(names[0])
    return moved


def assert_close(found: list[fp.Risk], expected: list[fp.Risk], tolerance: float = ROUNDING) -> None:
    assert [r.loss for r in found] == pytest.approx([r.loss for r in expected], rel=tolerance, abs=tolerance)
    flips = 0.0 if tolerance < 1e-3 else 0.1  # in bfloat16 one of twelve samples has two equal logits
    assert [r.error for r in found] == pytest.approx([r.error for r in expected], abs=flips)


@pytest.mark.usefixtures("forced")
@pytest.mark.parametrize("name", strange.NETWORKS)
def test_slow_reference_every_network_one_by_one(name: str) -> None:
    model = strange.network(name)
    risk = fp.EmpiricalRisk(model, strange.data(), batch_size=5)
    points = points_of(risk)
    alone = [risk(point) for point in points]
    together: list[fp.Risk] = []
    assert_model_untouched(model, lambda: together.extend(risks_at(risk, points)))
    assert_close(together, alone, {"bfloat16": 1e-2, "float32": 1e-6, "convolutional": 1e-6}.get(name, ROUNDING))
    assert (points_at_once(risk) == 1) == (name in ALONE)
    assert [risk(point) for point in points] == alone


@pytest.mark.usefixtures("forced")
def test_slow_reference_batch_norm_with_statistics_per_point() -> None:
    inputs, labels = batch(13)
    model = normalised_network().eval()
    risk = fp.EmpiricalRisk(model, fp.LabelledData(inputs, labels), batch_size=4)
    other = normalised_network()
    other(inputs)
    for values, second in zip(other.parameters(), torch.linspace(0.8, 1.2, 99), strict=False):
        values.data.mul_(second)
    for policy in ("interpolate", "recalibrate"):
        found = fp.interpolate(risk, [model, other.eval()], fp.segment(5), batch_norm=policy)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(lockstep, "pays", lambda *_: False)
            alone = fp.interpolate(risk, [model, other], fp.segment(5), batch_norm=policy)
        torch.testing.assert_close(found.loss, alone.loss, rtol=ROUNDING, atol=ROUNDING)
        assert torch.equal(found.error, alone.error)
    assert points_at_once(risk) > 1


@pytest.mark.usefixtures("forced")
def test_slow_reference_slices_in_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    risk = fp.EmpiricalRisk(strange.network("sequential"), strange.data())
    monkeypatch.setitem(lockstep._AT_ONCE, risk.network, 4)  # 9 points: the last group has one
    found = fp.random_slice(risk, steps=3)
    monkeypatch.setattr(lockstep, "pays", lambda *_: False)
    alone = fp.random_slice(risk, steps=3)
    torch.testing.assert_close(found.loss, alone.loss, rtol=ROUNDING, atol=ROUNDING)
    assert torch.equal(found.error, alone.error)


@pytest.mark.usefixtures("forced")
@pytest.mark.parametrize("objective", ["loss", "error"])
@pytest.mark.parametrize("size", [2, 100])
def test_slow_reference_radii_of_a_group_start_alike(
    objective: str, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    risk = fp.EmpiricalRisk(strange.network("tied"), strange.data())
    monkeypatch.setitem(lockstep._AT_ONCE, risk.network, size)
    found = fp.flatness_radius(risk, directions=3, epsilon=0.09, objective=objective, verify=2)  # type: ignore[arg-type]
    base, start = getattr(risk(), objective), 0.1 * norm(risk.center)
    for k in range(min(size, 3)):
        at = along(risk, [risk.center, direction(risk.center, tuple(risk.center), "isotropic", 0, k, {})])
        alone = first_exit(
            lambda r, at=at: getattr(at((1.0, r)), objective) - base,
            0.09,
            start=start,
            max_radius=1000 * start,
            smooth=objective == "loss",
            verify=2,
        )
        assert [found.lower[k], found.upper[k], found.radii[k]] == pytest.approx(
            [alone.lower, alone.upper, 0.0 if alone.lower == 0 else alone.radius], rel=1e-9
        )
        assert found.evaluations[k] == alone.evaluations
    monkeypatch.setattr(lockstep, "pays", lambda *_: False)
    warm = fp.flatness_radius(risk, directions=3, epsilon=0.09, objective=objective, verify=2)  # type: ignore[arg-type]
    torch.testing.assert_close(found.radii, warm.radii, rtol=1e-2, atol=0)  # the brackets' own width


@pytest.mark.usefixtures("forced")
def test_a_user_defined_loss_that_vmap_refuses_is_not_stacked_itself() -> None:
    def loss(logits: Tensor, labels: Tensor) -> Tensor:
        values = nn.functional.cross_entropy(logits, labels, reduction="none")
        return values * values.detach().numpy().clip(1, 1)[0].item()

    risk = fp.EmpiricalRisk(strange.network("plain"), strange.data(), loss=loss)
    assert points_at_once(risk) > 1
    points = points_of(risk)
    assert_close(risks_at(risk, points), [risk(point) for point in points])


@pytest.mark.usefixtures("forced")
def test_a_network_that_is_another_one_at_stacked_weights_runs_alone() -> None:
    class Peeks(Nested):
        def forward(self, x: Tensor) -> Tensor:
            weight = self.body[0].weight
            stacked = torch._C._functorch.is_batchedtensor(weight)
            return super().forward(x) * (weight.square().sum() / before if stacked else 1)  # the same at the center

    network = strange.built(Peeks)
    before = float(network.get_parameter("body.0.weight").detach().square().sum())
    risk = fp.EmpiricalRisk(network, strange.data())
    assert points_at_once(risk) == 1


@pytest.mark.usefixtures("forced")
def test_logits_that_are_not_finite_have_no_error() -> None:
    risk = fp.EmpiricalRisk(strange.network("plain"), strange.data())
    name = next(iter(risk.center))
    broken = {name: torch.full_like(risk.center[name], torch.nan)}
    first, second = risks_at(risk, [broken, {name: risk.center[name]}])
    assert first.loss != first.loss
    assert first.error != first.error
    assert_close([second], [risk()])
    with pytest.raises(ValueError, match="no parameter 'other'"):
        risks_at(risk, [risk.center, {"other": torch.ones(1)}])
    assert risks_at(risk, []) == []


def test_the_cpu_and_other_risks_run_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "vmap", None)
    risk = fp.EmpiricalRisk(strange.network("plain"), strange.data())
    assert not lockstep.pays(risk.network, 1)
    vectors, rows = [risk.center], [[0.5], [1.0]]
    assert risks_along(risk, vectors, rows) == [risk.along(vectors)(row) for row in rows]
    assert points_at_once(Bowl(risk.center)) == 1  # type: ignore[arg-type]


def test_the_bound_on_bytes_groups_the_points(monkeypatch: pytest.MonkeyPatch) -> None:
    with Elsewhere():
        risk = fp.EmpiricalRisk(elsewhere.move(strange.network("plain")), strange.data())
        weights = 3 * sum(value.nbytes for value in risk.center.values())
        each = weights + len(risk.data) * bytes_per_sample(risk.network, risk.data)
        for total, size in ((5 * each, 5), (each - 1, 1)):
            lockstep._AT_ONCE.clear()
            monkeypatch.setattr(lockstep, "_BYTES", total)
            assert points_at_once(risk) == size
        monkeypatch.setattr(lockstep, "_SMALL", 12 * sum(value.numel() for value in risk.center.values()))
        assert not lockstep.pays(risk.network, 12)
        assert lockstep.pays(risk.network, 11)


def test_the_host_waits_once_for_the_next_radii_of_all_directions(monkeypatch: pytest.MonkeyPatch) -> None:
    model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3)).double().eval()
    groups, waits = [], []
    with Elsewhere() as device:
        risk = fp.EmpiricalRisk(elsewhere.move(model), strange.data(), batch_size=4)
        assert points_at_once(risk) > 7

        def counted(risk: fp.EmpiricalRisk, points: Iterable[Weights]) -> list[fp.Risk]:
            points = list(points)
            device.counts.clear()
            found = risks_at(risk, points)
            groups.append(len(points))
            waits.append(sum(device.waits.values()))
            return found

        monkeypatch.setattr(flatness, "risks_at", counted)
        radii = fp.flatness_radius(risk, directions=7, rtol=0.1)
    assert set(waits) == {1}
    assert groups[0] == 7
    assert sum(groups) == radii.evaluations.sum()
    assert len(groups) == radii.evaluations.max()
