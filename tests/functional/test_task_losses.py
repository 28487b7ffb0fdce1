"""Named losses of other tasks, in closed form and against torch's."""

import pytest
import torch
from torch import nn

from flatprobe.functional.losses import per_sample_loss
from flatprobe.functional.task_losses import TASK_LOSSES, mean_of_counted

Z = torch.tensor([[1.0, -2.0], [0.5, 3.0]], dtype=torch.float64)
T = torch.tensor([[1.0, 0.0], [0.0, 1.0]], dtype=torch.float64)


@pytest.mark.parametrize(
    ("name", "torchs"),
    [
        ("squared_error", nn.MSELoss()),
        ("absolute_error", nn.L1Loss()),
        ("binary_cross_entropy", nn.BCEWithLogitsLoss()),
    ],
)
def test_slow_reference_the_mean_over_samples_is_torchs(name: str, torchs: nn.Module) -> None:
    values = per_sample_loss(name, TASK_LOSSES)(Z, T)
    assert values.shape == (2,)
    assert float(values.mean()) == pytest.approx(float(torchs(Z, T)), rel=1e-12)
    flat, column = Z[:, 0], T[:, :1]
    own = per_sample_loss(name, TASK_LOSSES)(flat, column)  # one output, whatever the shapes
    assert float(own.mean()) == pytest.approx(float(torchs(flat, column[:, 0])), rel=1e-12)


def test_closed_form_means_of_what_counts() -> None:
    counted = torch.tensor([[True, False], [True, True], [False, False]])
    found = mean_of_counted(torch.tensor([[3.0, 100.0], [1.0, 2.0], [5.0, 5.0]]), counted)
    assert found[:2].tolist() == [3.0, 1.5]
    assert bool(found[2].isnan())


@pytest.mark.parametrize("shift", [False, True])
def test_closed_form_tokens_predict_themselves_or_the_next(shift: bool) -> None:
    """Logits log p give the loss -log p: 1/2, 1/4 and 1/4 for every token, so log 2 or log 4."""
    outputs = torch.tensor([0.5, 0.25, 0.25]).log().expand(1, 3, 3)
    targets = torch.tensor([[1, 0, 0]])
    loss = per_sample_loss({"name": "token_cross_entropy", "shift": shift}, TASK_LOSSES)(outputs, targets)
    logs = [2, 2] if shift else [4, 2, 2]
    expected = torch.tensor(logs, dtype=torch.float64).log().mean()
    assert float(loss) == pytest.approx(float(expected), rel=1e-6)


def test_pixels_of_the_ignored_index_do_not_count() -> None:
    outputs = torch.zeros(1, 4, 2, 2)
    masks = torch.tensor([[[0, 9], [3, 9]]])
    loss = per_sample_loss({"name": "pixel_cross_entropy", "ignore_index": 9}, TASK_LOSSES)(outputs, masks)
    assert float(loss) == pytest.approx(float(torch.tensor(4.0).log()))
