"""Measurements: refusals, and the hash that names a record."""

import pytest

import flatprobe as fp
from tests.helpers.sweeps import base

PAIR = base().vary({"seeds.network": (0, 1)})
RISK = fp.Measurement("risk", on="test")


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"probe": "flatness"}, "probe must be one of 'risk'"),
        ({"probe": "interpolate"}, "must have experiments"),
        ({"probe": "interpolate", "experiments": PAIR[:1]}, "experiments must be at least 2"),
        ({"probe": lambda _model, _data: {}}, "importable as package.module:function"),
        ({"probe": "no.such:thing"}, "that every process can import"),
        ({"probe": "risk", "samples": 0}, "samples"),
        ({"probe": "flatness_radius", "arguments": {"direction": 3}}, "must be among .*directions.*, got direction"),
        ({"probe": "history", "arguments": {"steps": 3}}, "arguments of history must be among none, got steps"),
        ({"probe": "history", "stage": "initial"}, "stage must be one that trains"),
    ],
)
def test_a_wrong_measurement_is_named(arguments: dict[str, object], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        fp.Measurement(**arguments)


def test_property_the_hash_of_a_measurement_holds_all_but_its_name() -> None:
    own = fp.Measurement("risk")
    others = [
        fp.Measurement("risk", on="test"),
        fp.Measurement("risk", stage="initial"),
        fp.Measurement("risk", samples=3),
        fp.Measurement("risk", arguments={"loss": "squared"}),
        fp.Measurement("history"),
    ]
    keys = [measurement.key(PAIR[:1]) for measurement in (own, *others)]
    assert len({*keys, own.key(PAIR[1:])}) == 7
    assert fp.Measurement("risk", name="other", stage=0).key(PAIR[:1]) == own.key(PAIR[:1])
