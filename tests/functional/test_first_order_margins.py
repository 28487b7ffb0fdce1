"""First-order estimates: their constants and the points that they are sampled at."""

import math

import pytest
import torch
from scipy import stats
from torch import Tensor, nn

import flatprobe as fp
from flatprobe.functional.first_order_margins import jacobian_ratio, sample_ball

SAMPLES = 4000


def points(norm: str, size: int, count: int = 4) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    noise = iter(lambda: torch.randn(SAMPLES, size, generator=generator), None)
    inputs = torch.ones(SAMPLES, size)
    radius = torch.full((SAMPLES,), 0.5, dtype=torch.float64)
    return list(sample_ball(inputs, inputs + 0.1, radius, noise, norm, count))


def test_closed_form_half_of_the_points_lie_on_the_segment() -> None:
    found = points("l2", 3, 5)
    for number, expected in enumerate((1.0, 1.05, 1.1)):
        torch.testing.assert_close(found[number], torch.full((SAMPLES, 3), expected))
    assert len(found) == 5


@pytest.mark.parametrize("size", [2, 5, 60])
def test_property_the_others_are_uniform_in_the_ball(size: int) -> None:
    offsets = (points("l2", size)[3] - 1).double() / 0.5
    lengths = offsets.norm(dim=1)
    # Their d-th power is uniform, and says nothing of the direction.
    assert float(lengths.max()) <= 1 + 1e-6
    assert stats.kstest(lengths.numpy() ** size, "uniform").pvalue > 1e-3
    directions = offsets / lengths[:, None]
    tolerance = 4 / math.sqrt(SAMPLES)
    for values in (offsets[:, 0], directions[:, 0] * lengths**size):
        assert abs(float(values.mean())) < tolerance * float(values.std())


def test_property_the_others_are_uniform_in_the_cube() -> None:
    offsets = (points("linf", 3)[3] - 1).double() / 0.5
    for own in offsets.T:
        assert stats.kstest((own.numpy() + 1) / 2, "uniform").pvalue > 1e-3


def test_closed_form_the_ratio_and_its_factors() -> None:
    """A lead of 3 over sqrt(2) ||J||; in linf over sqrt(d) more; 0 where misclassified."""
    logits = torch.tensor([[5.0, 2.0, 1.0], [5.0, 6.0, 1.0]])
    labels, spectral = torch.zeros(2, dtype=torch.long), torch.tensor([2.0, 2.0], dtype=torch.float64)
    for norm, root in (("l2", 1.0), ("linf", math.sqrt(7))):
        found = jacobian_ratio(logits, labels, spectral, norm, 7)
        assert found.tolist() == pytest.approx([3 / (math.sqrt(2) * 2 * root), 0.0])


class Bump(nn.Module):
    """Steep between 0.30 and 0.37, and flat elsewhere."""

    def __init__(self) -> None:
        super().__init__()
        self.slope = nn.Parameter(torch.tensor(100.0, dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        z = self.slope * ((x - 0.3).relu() - (x - 0.37).relu()) + 1
        return torch.cat([z, 0 * z], 1)


def test_closed_form_segments_are_sampled_at_their_thirds() -> None:
    data = fp.LabelledData(torch.tensor([[0.0], [1.0]]), torch.tensor([0, 0]), classes=2)
    found = fp.geometric_margins(Bump().eval(), data, lower="gamma_2", upper="fab", segments=8)
    # ||J|| = 100 at a third of the segment from 0 to 1; the leads are 1 and 8.
    assert found.lowers["gamma_2"].tolist() == pytest.approx([1 / (math.sqrt(2) * 100), 8 / (math.sqrt(2) * 100)])
