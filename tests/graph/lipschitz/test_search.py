"""The search for the last positive value: roots of known functions, always at a positive value."""

import torch
from torch import Tensor

from flatprobe.graph.lipschitz.search import largest_positive

FUNCTIONS = [  # f, its root
    (lambda t: 3 - 2 * t, 1.5),
    (lambda t: 1 - t**2, 1.0),
    (lambda t: 2 - t.exp(), 0.6931471805599453),
    (lambda t: torch.where(t < 0.25, 1 - t, 1 - t - 1e6 * (t - 0.25)), 0.25 + 0.75 / (1e6 + 1)),
    (lambda t: torch.where(t < 0.5, 1 - t, 0.5 - 1e-3 * (t - 0.5)), 500.5),
    (lambda t: torch.where(t < 0.7, 1.0, -torch.inf), 0.7),
    (lambda t: 1e-30 - 1e-20 * t, 1e-10),
    (lambda t: -1 - t, 0.0),
    (lambda t: 0 * t, 0.0),
]


def _search() -> tuple[Tensor, list[int]]:
    seen: list[int] = []

    def subset(own: Tensor):
        def function(t: Tensor) -> Tensor:
            seen.append(len(own))
            values = [FUNCTIONS[k][0](s) for k, s in zip(own.tolist(), t, strict=True)]
            return torch.stack([torch.as_tensor(value, dtype=torch.float64) for value in values])

        return function

    everyone = torch.arange(len(FUNCTIONS))
    start = subset(everyone)(torch.zeros(len(FUNCTIONS), dtype=torch.float64))
    return largest_positive(subset, start, torch.full_like(start, 1e-13)), seen


def test_closed_form_roots_from_below() -> None:
    found, _ = _search()
    roots = torch.tensor([root for _, root in FUNCTIONS], dtype=torch.float64)
    assert bool((found <= roots * (1 + 1e-15)).all()), found
    smooth = torch.tensor([k != 5 for k in range(len(FUNCTIONS))])  # a jump is approached by halves
    torch.testing.assert_close(found[smooth], roots[smooth], rtol=1e-6, atol=0)
    torch.testing.assert_close(found, roots, rtol=1e-2, atol=0)


def test_property_every_root_has_a_positive_value() -> None:
    found, _ = _search()
    for (function, root), t in zip(FUNCTIONS, found, strict=True):
        assert root == 0 or float(function(t)) > 0


def test_property_only_open_samples_are_evaluated_again() -> None:
    _, seen = _search()
    assert seen[-1] < len(FUNCTIONS) / 2
    assert len(seen) <= 33


def test_edge_no_samples() -> None:
    nothing = torch.zeros(0, dtype=torch.float64)
    assert len(largest_positive(lambda _own: lambda t: t, nothing, nothing)) == 0
