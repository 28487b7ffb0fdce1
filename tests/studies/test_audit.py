"""The audit: what depends on the parametrisation moves, what is the function's own stays."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import Tensor, nn

import flatprobe as fp
from flatprobe.cli.audits import audit_table, cell, lines
from flatprobe.studies.audit import AUDITED, DEFAULT, NEITHER, PARAMETRISATION, SCALE, Audit, Row
from flatprobe.studies.significance import same_law, spread_of, stays
from flatprobe.utils.results import Result
from tests.helpers import cases
from tests.helpers.properties import assert_model_untouched

if TYPE_CHECKING:
    import pandas

DATA = cases.data_for((1, 8, 8), samples=20)
FACTOR = 16.0  # far enough that the mean over two directions cannot stay by chance


def radius(law: str) -> Any:
    return lambda model, data, seed: fp.flatness_radius(fp.EmpiricalRisk(model, data), law=law, directions=2, seed=seed)


PROBES = {
    "isotropic": radius("isotropic"),
    "adaptive": radius("adaptive"),
    "margins": lambda model, data, _seed: fp.functional_margins(model, data),
    "scores": lambda model, data, _seed: fp.scores(model, data),
    "jacobian": lambda model, data, _seed: fp.jacobian_norms(model, data),
    "robustness": lambda model, data, seed: fp.gaussian_robustness(model, data, gammas=[0.3], draws=2, seed=seed),
}
FUNCTION = ("margins", "scores", "jacobian", "robustness")


@dataclass(frozen=True, kw_only=True, repr=False)
class Number(Result):
    """A number, as a user's own probe may return it."""

    value: float

    def summary(self) -> dict[str, float]:
        return {"value": self.value}

    def to_frame(self) -> "pandas.DataFrame":
        import pandas as pd

        return pd.DataFrame({"value": [self.value]})

    @classmethod
    def from_frame(cls, frame: "pandas.DataFrame", settings: dict[str, Any]) -> "Number":
        return cls(value=float(frame["value"][0]), settings=settings)


def number(value: Any) -> Any:
    def probe(model: nn.Module, _data: fp.LabelledData, seed: int) -> Number:
        with torch.no_grad():
            return Number(value=float(value(model, seed)), settings={})

    return probe


@pytest.fixture(scope="module", params=["mlp", "cnn", "residual"])
def result(request: pytest.FixtureRequest) -> Audit:
    return fp.audit(cases.NETWORKS[request.param](), DATA, probes=PROBES, factor=FACTOR, seeds=2)


def rows(result: Audit, change: str) -> dict[str, Row]:
    return {row.probe: row for row in result.headline() if row.change == change}


def test_closed_form_the_function_s_own_figures_stay(result: Audit) -> None:
    kept = [change for change, made in result.applied.items() if made["keeps"] == "function"]
    assert "rescaling" in kept
    for change in kept:
        assert result.applied[change]["deviation"] <= 1e-9
        for row in result.rows:
            if row.change == change and row.probe in FUNCTION:
                assert row.after == pytest.approx(row.before, rel=1e-9)
                assert not row.moves
                assert math.isnan(row.spread)


def test_closed_form_margins_and_jacobians_follow_the_logits_exactly(result: Audit) -> None:
    found = rows(result, "logit_scale")
    for probe in ("margins", "jacobian"):
        assert found[probe].after == pytest.approx(FACTOR * found[probe].before, rel=1e-9)
        assert found[probe].relative_change == pytest.approx(FACTOR - 1, rel=1e-9)
        assert found[probe].moves
    assert found["scores"].moves
    assert not found["robustness"].moves
    assert found["robustness"].after == found["robustness"].before


def test_property_adaptive_radii_follow_a_rescaling_and_isotropic_ones_do_not(result: Audit) -> None:
    for change in set(result.applied) - {"permutation", "logit_scale"}:
        found = rows(result, change)
        assert found["isotropic"].moves
        assert found["adaptive"].after == pytest.approx(found["adaptive"].before, rel=1e-9)
    for probe in ("isotropic", "adaptive"):  # other directions of the same law
        row = rows(result, "permutation")[probe]
        assert row.after != row.before
        assert row.spread > 0
        assert not row.moves
    verdicts = result.verdicts()
    assert verdicts["isotropic"] == PARAMETRISATION
    assert {verdicts[probe] for probe in ("adaptive", "margins", "scores", "jacobian")} == {SCALE}
    assert verdicts["robustness"] == NEITHER
    assert result.summary()["moved by rescaling"] == 1
    assert result.summary()["probes"] == len(PROBES)


def test_what_does_not_apply_is_named(result: Audit) -> None:
    normalised = "batch_norm" in result.applied
    assert result.missing == ({} if normalised else {"batch_norm": "no BatchNorm follows a layer"})
    made = result.applied["rescaling"]
    assert (len(made["places"]), len(made["left_out"])) == ((3, 6) if normalised else (len(made["places"]), 0))


def test_the_record_comes_back(result: Audit, tmp_path) -> None:
    loaded = fp.load(fp.save(result, tmp_path / "audit.parquet"))
    assert [repr(row) for row in loaded.rows] == [repr(row) for row in result.rows]  # nan equals nan
    assert loaded.applied == result.applied
    assert loaded.missing == result.missing
    frame = result.to_frame()
    assert {"change", "probe", "figure", "before", "after", "relative_change", "spread", "moves"} == set(frame)


def test_the_table_shows_what_moves(result: Audit) -> None:
    table = audit_table(result)
    assert [column.header for column in table.columns][:3] == ["probe", "figure", "as given"]
    column = {c.header: list(c.cells) for c in table.columns}
    assert column["logit scale"][2] == "+1,500 %"
    assert column["rescaling"][1:] == ["stays"] * 5
    assert column["permutation"][0].startswith("stays (draws \u00b1 ")
    said = lines(result)
    assert "neither: robustness" in said
    assert f"{PARAMETRISATION}: isotropic" in said
    assert any(line.startswith("rescaling: ") and line.endswith(" layers, same function") for line in said)
    assert cell(Row("rescaling", "x", "y", 0.0, 0.0, 1.0, moves=False)) == "stays"
    assert cell(Row("rescaling", "x", "y", math.nan, 1.0, math.nan, moves=True)) == "\u2013"
    assert cell(Row("rescaling", "x", "y", 2.0, 1.0, math.nan, moves=True)) == "-50.0 %"


def test_a_probe_that_looks_at_one_unit_moves_under_a_permutation() -> None:
    first = number(lambda model, _seed: model.linear1.weight[0].norm())
    draw = number(lambda model, seed: model.linear1.weight[0].norm() + 1e-6 * seed)
    noise = number(lambda model, seed: 1 + seed % 7 + (model.linear1.weight[0, 0] > 0))
    probes = {"first": first, "draw": draw, "noise": noise}
    result = fp.audit(cases.mlp(), DATA, probes=probes, changes=["permutation"])
    found = rows(result, "permutation")
    assert (found["first"].spread, found["first"].moves) == (0, True)
    assert 0 < found["draw"].spread < 1e-5
    assert found["draw"].moves
    assert not found["noise"].moves
    assert list(result.applied) == ["permutation"]
    other = fp.audit(cases.mlp(), DATA, probes=probes, changes=["permutation"], seed=1)
    assert rows(other, "permutation")["first"].after != found["first"].after


def test_figures_that_are_no_numbers_are_reported() -> None:
    probes = {
        "always": number(lambda _model, _seed: math.nan),
        "after": number(lambda model, _seed: math.nan if model.linear3.weight.abs().max() > 0.5 else 1),
        "from zero": number(lambda model, _seed: model.linear3.weight.abs().max() > 0.5),
    }
    found = rows(fp.audit(cases.mlp(), DATA, probes=probes), "logit_scale")
    assert not found["always"].moves
    assert found["after"].moves
    assert math.isnan(found["after"].relative_change)
    assert found["from zero"].moves
    assert found["from zero"].relative_change == math.inf


def test_closed_form_moves() -> None:
    assert spread_of([1.0, 2.0, 3.0], [4.0, 4.0, 4.0]) == pytest.approx(math.sqrt(0.5))
    # Student's t with 4 degrees of freedom is exceeded with probability 1e-3 at 8.610 (tables).
    limit = 8.610 * math.sqrt(2 / 3)
    for shift, same in ((0.999 * limit, True), (1.001 * limit, False)):
        assert same_law([-1.0, 0.0, 1.0], [shift - 1, shift, shift + 1]) is same
    assert not same_law([1.0, math.inf], [1.0, 1.0])
    assert stays(math.nan, math.nan, 0.1)
    assert not stays(1.0, math.nan, 0.1)
    assert stays(math.inf, math.inf, 0.1)


def test_property_the_model_is_untouched() -> None:
    model = cases.residual()
    assert_model_untouched(model, lambda: fp.audit(model, DATA, probes=["scores"]))


def test_the_defaults_are_the_named_probes(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in AUDITED:
        monkeypatch.setitem(AUDITED, name, number(lambda _model, _seed: 1.0))
    result = fp.audit(cases.mlp(), DATA, changes=["logit_scale"])
    assert result.verdicts() == dict.fromkeys(DEFAULT, NEITHER)


def test_slow_reference_a_named_probe_is_the_probe_itself() -> None:
    model = cases.mlp()
    result = fp.audit(model, DATA, probes=["flatness_radius_adaptive"], changes=["rescaling"])
    (row,) = result.headline()
    assert row.before == fp.flatness_radius(fp.EmpiricalRisk(model, DATA), law="adaptive").mean
    assert not row.moves


class Reused(nn.Module):
    """A layer whose weight the network's own code uses once more."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.last = nn.Linear(64, 8), nn.Linear(8, 8), nn.Linear(8, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.second(torch.relu(self.first(x.flatten(1)))))
        z: Tensor = self.last(x) + nn.functional.linear(x, self.second.weight).sum(1, keepdim=True)
        return z


def test_a_copy_with_other_logits_is_not_measured() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Reused().eval()
    with pytest.raises(
        ValueError, match=r"at least one change must apply to Reused, .*logit_scale: the logits are not the value"
    ):
        fp.audit(model, DATA, probes=["scores"], changes=["batch_norm", "logit_scale"])
    with pytest.raises(
        ValueError, match=r"the copy's logits must agree to .*, got 0\.\d+\. Look for a layer's weight used"
    ):
        fp.audit(model, DATA, probes=["scores"], changes=["permutation"])


def test_half_precision_is_checked_at_its_own_precision() -> None:
    result = fp.audit(cases.residual().to(torch.bfloat16), DATA, probes=["functional_margins"])
    assert list(result.applied) == ["rescaling", "batch_norm", "permutation", "logit_scale"]
    assert all(made["deviation"] <= made["limit"] == 2**-3.5 for made in result.applied.values())


def twice(model: nn.Module, data: fp.LabelledData, seed: int) -> Any:
    return 2.0


def test_bad_audits() -> None:
    model = cases.mlp()
    with pytest.raises(ValueError, match=r"probe must be one of 'generalization', .*, got 'luck'"):
        fp.audit(model, DATA, probes=["luck"])
    with pytest.raises(ValueError, match="probes must name at least one probe"):
        fp.audit(model, DATA, probes=[])
    with pytest.raises(ValueError, match="names of the probes must differ, got twice, twice"):
        fp.audit(model, DATA, probes=[twice, twice])
    with pytest.raises(TypeError, match="the probe 'twice' must return a flatprobe Result, got a float"):
        fp.audit(model, DATA, probes=[twice])
    with pytest.raises(ValueError, match=r"change must be one of 'rescaling'.*, got 'shear'"):
        fp.audit(model, DATA, probes=["scores"], changes=["shear"])
    with pytest.raises(ValueError, match="at least one change must apply to Sequential, got none"):
        fp.audit(model, DATA, probes=["scores"], changes=[])
    with pytest.raises(ValueError, match=r"tolerance must be a positive.*, got 0\.0"):
        fp.audit(model, DATA, tolerance=0.0)
    with pytest.raises(ValueError, match=r"seeds must be at least 2.*, got 1"):
        fp.audit(model, DATA, seeds=1)
    with pytest.raises(ValueError, match=r"factor must be a finite number above 1, got 1\.0"):
        fp.audit(model, DATA, probes=["scores"], factor=1.0)
    with pytest.raises(ValueError, match="in training mode"):
        fp.audit(cases.mlp().train(), DATA)
