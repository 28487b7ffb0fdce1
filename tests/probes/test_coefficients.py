"""Coefficients of simplex and segment."""

import torch

import flatprobe as fp


def test_closed_form_simplex_and_segment() -> None:
    for steps in (1, 4, 20):
        points = fp.simplex(3, steps=steps)
        assert len(points) == (steps + 1) * (steps + 2) // 2
        torch.testing.assert_close(points.sum(1), torch.ones(len(points), dtype=torch.float64), rtol=0, atol=1e-15)
        assert len(set(map(tuple, (points * steps).round().tolist()))) == len(points)
        assert bool((points >= 0).all())
    assert fp.simplex(2, steps=4).tolist() == fp.segment(steps=5).tolist()
    assert len(fp.segment(steps=21)) == 21
    assert len(fp.simplex(4, steps=3)) == 20
