"""Products of float32 numbers keep all digits in measurements, and torch's settings are restored."""

import threading
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import nn

import flatprobe as fp
from flatprobe.utils.precision import _SETTINGS, full_precision, reduced_products

BACKENDS: Any = torch.backends  # which has no annotations of these settings
DATA = fp.LabelledData(torch.rand(6, 4), torch.arange(6) % 3)


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    before = {name: own.fp32_precision for name, own in _SETTINGS.items()}
    SEEN.clear()
    older = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    yield
    BACKENDS.fp32_precision = "none"
    torch.set_float32_matmul_precision(older[0])
    torch.backends.cudnn.allow_tf32 = older[1]
    for name, value in before.items():
        _SETTINGS[name].fp32_precision = value


SEEN: list[dict[str, str]] = []  # The settings in the passes; a probe copies what a network holds itself.


class Watcher(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        SEEN.append(reduced_products())
        return self.layer(x)


def _reduce() -> dict[str, str]:
    torch.set_float32_matmul_precision("medium")
    torch.backends.cudnn.allow_tf32 = True
    found = reduced_products()
    assert found == {"cuda matmul": "tf32", "cuda conv": "tf32", "cuda rnn": "tf32", "cpu matmul": "bf16"}
    return found


def test_a_probe_multiplies_in_full_precision_and_restores_the_settings() -> None:
    before = _reduce()
    found = fp.functional_margins(Watcher().eval(), DATA)
    assert SEEN
    assert not any(SEEN)
    assert reduced_products() == before
    assert torch.backends.cuda.matmul.allow_tf32  # The older names can be read again.
    assert found.settings["environment"]["float32_products"] == "full"


@pytest.mark.parametrize("newer", [{}, {"cuda matmul": "tf32", "cpu conv": "bf16"}, {"cuda conv": "ieee"}])
@pytest.mark.parametrize("older", ["highest", "medium"])
def test_the_newer_settings_are_restored_each(newer: dict[str, str], older: str) -> None:
    torch.set_float32_matmul_precision(older)
    torch.backends.cudnn.allow_tf32 = True
    for name, value in newer.items():
        _SETTINGS[name].fp32_precision = value
    before = {name: own.fp32_precision for name, own in _SETTINGS.items()}
    with full_precision():
        assert reduced_products() == {}
    assert before == {name: own.fp32_precision for name, own in _SETTINGS.items()}


def test_a_network_is_traced_within_a_measurement() -> None:
    """`torch.export` reads the older switches, which torch refuses where newer ones differ."""
    _reduce()
    assert fp.weight_norms(nn.Sequential(nn.Linear(4, 3)).eval(), (4,)).path > 0


def test_an_error_restores_the_settings() -> None:
    before = _reduce()
    with pytest.raises(ValueError, match="batch_size"):
        fp.functional_margins(Watcher().eval(), DATA, batch_size=0)
    assert reduced_products() == before


def test_a_requested_precision_is_kept_and_recorded() -> None:
    before = _reduce()
    BACKENDS.fp32_precision = "tf32"
    found = fp.functional_margins(Watcher().eval(), DATA)
    expected = before | {"cpu conv": "tf32", "cpu rnn": "tf32"}
    assert SEEN
    assert all(own == expected for own in SEEN)
    assert found.settings["environment"]["float32_products"].startswith("tf32 in cuda matmul, tf32 in cuda conv")


def test_the_record_says_whether_algorithms_are_deterministic() -> None:
    model = nn.Linear(4, 3).eval()
    assert fp.functional_margins(model, DATA).settings["environment"]["deterministic"] is False
    torch.use_deterministic_algorithms(True)
    try:
        assert fp.functional_margins(model, DATA).settings["environment"]["deterministic"] is True
    finally:
        torch.use_deterministic_algorithms(False)


def test_the_last_of_overlapping_blocks_restores_the_settings() -> None:
    before = _reduce()
    inside, leave = threading.Event(), threading.Event()

    def other() -> None:
        with full_precision():
            inside.set()
            leave.wait(10)

    thread = threading.Thread(target=other)
    with full_precision():
        thread.start()
        inside.wait(10)
    assert reduced_products() == {}
    leave.set()
    thread.join()
    assert reduced_products() == before
