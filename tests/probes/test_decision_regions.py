"""Decision regions: closed on linear networks, a slow reference in a plane, records, refusals."""

import math

import pytest
import torch
from torch import nn

import flatprobe as fp
from tests.helpers import cases
from tests.helpers.properties import assert_model_untouched


def linear(inputs: int, classes: int, *, seed: int = 0) -> nn.Linear:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Linear(inputs, classes).double().eval()


def test_closed_form_a_linear_network_of_two_inputs_over_a_box() -> None:
    model = linear(2, 3)
    corners = torch.tensor([[-2.0, -1.0], [3.0, 1.0]], dtype=torch.float64)
    found = fp.decision_regions(model, corners, extent=0, steps=11)
    a, b = (values.view(11, 11) for values in (found.a, found.b))
    assert a[:, 0].tolist() == pytest.approx([-2 + k / 2 for k in range(11)])
    assert b[0].tolist() == pytest.approx([-1 + k / 5 for k in range(11)])
    assert (a[-1, -1], b[-1, -1]) == (3, 1)  # the ends are exact
    logits = torch.stack([found.a, found.b], 1) @ model.weight.T + model.bias
    ordered = logits.sort(1, descending=True).values
    assert torch.equal(found.classes, logits.argmax(1))
    torch.testing.assert_close(found.margins, (ordered[:, 0] - ordered[:, 1]).detach(), rtol=0, atol=1e-12)
    assert torch.equal(found.points, corners)
    assert found.predicted == tuple(model(corners).argmax(1).tolist())
    shares = found.shares()
    assert shares == {k: float((found.classes == k).double().mean()) for k in shares}
    assert sum(shares.values()) == pytest.approx(1)
    assert found.summary() == {
        "classes": len(shares), "first_share": shares.get(found.predicted[0], 0.0), "not_finite": 0,
    }  # fmt: skip


def test_closed_form_the_margin_on_a_plane_of_a_linear_network_is_affine_in_the_coordinates() -> None:
    model = linear(7, 2)
    points = cases.data_for((7,), samples=3).inputs.double()
    found = fp.decision_regions(model, points, steps=21)
    # z_0 - z_1 = alpha a + beta b + gamma, by the three given points, whose distances are those of the inputs.
    torch.testing.assert_close(torch.cdist(found.points, found.points), torch.cdist(points, points), rtol=0, atol=1e-9)
    lead = model(points).detach() @ torch.tensor([1.0, -1.0], dtype=torch.float64)
    one = torch.ones(3, 1, dtype=torch.float64)
    slope = torch.linalg.solve(torch.cat([found.points, one], 1), lead)
    expected = slope[0] * found.a + slope[1] * found.b + slope[2]
    torch.testing.assert_close(found.margins, expected.abs(), rtol=0, atol=1e-9)
    assert torch.equal(found.classes, (expected < 0).long())
    room = 0.5 * float((found.points.amax(0) - found.points.amin(0)).max())
    for values, own in zip((found.a, found.b), found.points.T, strict=True):
        assert float(values.min()) == pytest.approx(float(own.min()) - room)
        assert float(values.max()) == pytest.approx(float(own.max()) + room)


def test_slow_reference_the_plane_through_a_sample_and_two_adversarial_points() -> None:
    model, data = cases.cnn(), cases.data_for((1, 8, 8), samples=4)
    data = fp.LabelledData(data.inputs.double(), data.labels)
    with torch.no_grad():
        data = fp.LabelledData(data.inputs, model(data.inputs).argmax(1), classes=10)
    ends = [fp.adversarial_points(model, data, norm=norm).points for norm in ("l2", "linf")]
    x, y, z = (part[1].double() for part in (data.inputs, *ends))
    found = fp.decision_regions(model, torch.stack([x, y, z]), extent=0.3, steps=7)
    first = (y - x) / (y - x).norm()
    second = (z - x) - ((z - x) * first).sum() * first
    second = second / second.norm()
    for k in range(49):
        with torch.no_grad():
            logits = model((x + found.a[k] * first + found.b[k] * second)[None])[0]
        top = logits.sort(descending=True).values
        assert int(found.classes[k]) == int(logits.argmax())
        assert float(found.margins[k]) == pytest.approx(float(top[0] - top[1]), abs=1e-9)
    assert float(found.points[1, 0]) == pytest.approx(float((y - x).norm()), rel=1e-9)
    assert found.predicted[0] == int(data.labels[1])
    assert found.predicted[1] != int(data.labels[1])


def test_property_untouched_batch_size_invariant_and_kept_in_the_record(tmp_path) -> None:
    model, points = cases.mlp(), cases.data_for((1, 8, 8), samples=3).inputs
    assert_model_untouched(model, lambda: fp.decision_regions(model, points, steps=5))
    before = points.clone()
    found = fp.decision_regions(model, points, steps=9)
    assert torch.equal(points, before)
    for size in (1, 7, 81):
        own = fp.decision_regions(model, points, steps=9, batch_size=size)
        assert torch.equal(own.classes, found.classes)
        torch.testing.assert_close(own.margins, found.margins, rtol=0, atol=1e-9)
    loaded = fp.load(fp.save(found, tmp_path / "regions.parquet"))
    for name in ("a", "b", "classes", "margins", "points"):
        assert torch.equal(getattr(loaded, name), getattr(found, name))
    assert (loaded.predicted, loaded.steps) == (found.predicted, 9)


def test_property_a_point_whose_logits_overflow_is_reported() -> None:
    class Far(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.stack([x[:, 0], torch.where(x[:, 1] > 1, x[:, 1] * math.inf, x[:, 1])], 1)

    found = fp.decision_regions(Far().eval(), torch.tensor([[0.0, 0.0], [1.0, 1.0]]).double(), extent=1, steps=7)
    bad = found.b > 1
    assert int(bad.sum()) == found.summary()["not_finite"] > 0
    assert (found.classes[bad] == -1).all()
    assert found.margins[bad].isnan().all()
    assert found.margins[~bad].isfinite().all()
    assert found.shares()[-1] == pytest.approx(float(bad.double().mean()))


@pytest.mark.parametrize(
    ("points", "options", "message"),
    [
        (torch.zeros(4, 7), {}, r"points must be 3 inputs, or inputs of 2 values each, got \(4, 7\)"),
        (torch.zeros(3, 7), {}, "points must span a plane, got three on one line, at distances 0 and 0"),
        (torch.arange(3.0)[:, None].expand(3, 7), {}, "points must span a plane, got three on one line"),
        (torch.eye(7)[:3], {"steps": 1}, "steps must be at least 2, got 1"),
        (torch.eye(7)[:3], {"extent": -0.1}, "extent must be a finite number, at least 0, got -0.1"),
        (torch.eye(7)[:3], {"extent": math.nan}, "extent must be a finite number, at least 0, got nan"),
    ],
)
def test_what_spans_no_plane_is_refused(points: torch.Tensor, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fp.decision_regions(linear(7, 3), points.double(), **options)


def test_points_on_one_line_need_an_extent() -> None:
    model, points = linear(2, 3), torch.tensor([[0.0, 1.0], [2.0, 1.0]]).double()
    with pytest.raises(ValueError, match="points must be apart along both axes if extent is 0"):
        fp.decision_regions(model, points, extent=0)
    assert float(fp.decision_regions(model, points, steps=3).b.max()) == 2


def test_integer_points_are_refused() -> None:
    with pytest.raises(TypeError, match="decision_regions moves the inputs by small amounts"):
        fp.decision_regions(nn.Embedding(5, 3).eval(), torch.tensor([[0, 1], [1, 2]]))
