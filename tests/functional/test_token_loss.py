"""The cross-entropy of many tokens: value, first and second derivative, memory."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from flatprobe.functional import token_loss
from flatprobe.functional.token_loss import negative_log_likelihood


@pytest.fixture(params=[2**24, 100, 1], ids=["whole", "pieces", "single tokens"])
def _pieces(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(token_loss, "_BYTES", request.param)


def drawn(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(dtype)


LABELS = torch.tensor([[0, 3, 6], [6, 1, 2]])


@pytest.mark.usefixtures("_pieces")
def test_slow_reference_value_and_both_derivatives() -> None:
    z, u, w = drawn(2, 3, 7).requires_grad_(), drawn(2, 3, 7) + 1, drawn(2, 3).abs()
    found = negative_log_likelihood(z, LABELS)
    expected = F.cross_entropy(z.flatten(0, 1), LABELS.flatten(), reduction="none").view(2, 3)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=0)
    pairs = []
    for values in (found, expected):
        (slope,) = torch.autograd.grad((w * values.square()).sum(), z, create_graph=True)
        pairs.append((slope, torch.autograd.grad((slope * u).sum(), z)[0]))
    for one, other in zip(*pairs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)
    assert torch.autograd.gradcheck(lambda z: negative_log_likelihood(z, LABELS), z)
    assert torch.autograd.gradgradcheck(lambda z: negative_log_likelihood(z, LABELS), z)


def test_property_large_logits_and_half_precision_are_safe() -> None:
    z = drawn(2, 3, 7) * 1000
    expected = F.cross_entropy(z.flatten(0, 1), LABELS.flatten(), reduction="none").view(2, 3)
    torch.testing.assert_close(negative_log_likelihood(z, LABELS), expected, rtol=1e-12, atol=1e-12)
    half = drawn(2, 3, 7, dtype=torch.bfloat16).requires_grad_()
    found = negative_log_likelihood(half, LABELS)
    assert found.dtype == torch.float32
    expected = F.cross_entropy(half.float().flatten(0, 1), LABELS.flatten(), reduction="none").view(2, 3)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    assert torch.autograd.grad(found.sum(), half)[0].dtype == torch.bfloat16


def test_property_memory_holds_the_logits_and_their_gradient_alone() -> None:
    """Of tensors of the size of the logits, the graph saves the logits themselves and no other."""
    logits, labels = nn.Parameter(drawn(4, 8, 5000, dtype=torch.float32)), torch.zeros(4, 8, dtype=torch.long)
    saved: list[int] = []

    def keep(value: Tensor) -> Tensor:
        saved.append(value.untyped_storage().data_ptr())
        return value

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda value: value):
        loss = negative_log_likelihood(logits, labels)
    large = {place for place in saved if place == logits.untyped_storage().data_ptr()}
    assert large == {logits.untyped_storage().data_ptr()}
    assert len({*saved} - large) <= 2  # labels and sums, a number per token each
    assert loss.shape == (4, 8)


def test_labels_beyond_the_vocabulary_are_refused() -> None:
    with pytest.raises(ValueError, match="labels must be 0 to 6, the classes of the outputs, got 7"):
        negative_log_likelihood(drawn(2, 3, 7), LABELS + 1)
