"""S17's margin bounds on the digits: the quick preset measures every method, and its claims are looked at."""

import pandas as pd
import pytest

from analyses.sokolic2017 import margins
from flatprobe.attacks import MINIMUM_NORM
from flatprobe.utils.tables import read_table


@pytest.fixture(scope="module")
def record(tmp_path_factory: pytest.TempPathFactory):
    out = tmp_path_factory.mktemp("records") / "margins.parquet"
    assert margins.main(["--preset", "quick", "--out", str(out)]) == out
    return out


def test_the_quick_preset_measures_every_method_and_no_certificate_is_exceeded(record) -> None:
    frame, metadata = read_table(record)
    preset = margins.PRESETS["quick"]
    double = {f"{kind}{margins.DOUBLE}" for kind in margins.CERTIFIED}
    assert set(frame["method"]) == {*margins.LOWER, *double, *MINIMUM_NORM}
    assert len(frame) == preset.test * (len(margins.LOWER) + len(double) + len(MINIMUM_NORM)) * len(preset.networks)
    assert margins.check_claims(frame)["mlp: no certified lower bound above an upper bound"]
    medians = margins.table(frame).set_index("method")["median"]
    assert all(medians[kind] < medians[f"{kind}{margins.DOUBLE}"] < 1.1 * medians[kind] for kind in margins.CERTIFIED)
    assert "fingerprint" in metadata["subject"]["data"]


def test_closed_form_the_acceptance_rule() -> None:
    values = {
        "frobenius": 0.1,
        "spectral": 0.2,
        "frobenius in float64": 0.1,
        "spectral in float64": 0.2,
        "gamma_2": 0.3,
        "gamma_1": 0.4,
        "gradient": 0.5,
        "ddn": 0.6,
    }
    rows = [
        {
            "network": "x",
            "side": "upper" if method == "ddn" else "lower",
            "method": method,
            "sample": sample,
            "label": 0,
            "value": value,
            "closest": 0.6,
        }
        for method, value in values.items()
        for sample in range(3)
    ]
    frame = pd.DataFrame(rows)
    assert all(margins.check_claims(frame).values())
    frame.loc[frame["method"].str.startswith("spectral"), "value"] = 0.7
    assert not any(margins.check_claims(frame).values())
    assert margins.table(frame).set_index("method").loc["spectral", "above"] == 3
