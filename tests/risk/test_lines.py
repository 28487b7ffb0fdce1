"""The split evaluation along lines."""

import pytest

import flatprobe as fp
from flatprobe.risk.lines import split_for
from tests.helpers import cases

DATA = cases.data_for((1, 8, 8))


def test_first_layers_outputs_are_kept_up_to_the_bound_only(monkeypatch: pytest.MonkeyPatch) -> None:
    risk = fp.EmpiricalRisk(cases.mlp(), DATA)
    vectors = [risk.center, risk.center]
    needed = 2 * len(DATA) * 24 * 8  # two vectors, 24 units, float64
    for bound, kept in ((needed, True), (needed - 1, False)):
        monkeypatch.setattr("flatprobe.risk.lines._STORE", bound)
        assert (split_for(risk.network, risk.data, vectors) is not None) == kept
        assert risk.along(vectors)((0.5, 0.5)).loss == pytest.approx(risk().loss, rel=1e-9)
