"""Devices by name, and what takes one."""

import pytest
import torch
from torch import nn

import flatprobe as fp
from flatprobe.models.checkpoints import save_checkpoint
from flatprobe.utils import devices
from flatprobe.utils.devices import as_device, available


def test_the_cpu_is_always_there_and_other_names_are_refused_with_those_that_are() -> None:
    assert available()[0] == "cpu"
    assert as_device("cpu") == as_device(torch.device("cpu")) == torch.device("cpu")
    for absent in ("cuda:99", "gpu", "", "meta"):
        with pytest.raises(ValueError, match=rf"device must be one that this machine has, cpu.*, got '{absent}'"):
            as_device(absent)


def test_a_name_without_a_number_is_the_first_device_of_its_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert [str(as_device(name)) for name in ("cuda", "cuda:1")] == ["cuda", "cuda:1"]
    with pytest.raises(ValueError, match=r"cpu, cuda:0, cuda:1.*, got 'cuda:2'"):
        as_device("cuda:2")


def test_a_checkpoint_is_loaded_to_a_device(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "available", lambda: ["cpu", "meta"])
    save_checkpoint(nn.Linear(3, 2), tmp_path / "a.safetensors")
    model = nn.Linear(3, 2)
    assert fp.load_checkpoint(tmp_path / "a.safetensors", model, device="meta").weight.is_meta
    assert fp.load_checkpoint(tmp_path / "a.safetensors", model).weight.device == model.weight.device
    assert not model.weight.is_meta
    with pytest.raises(ValueError, match="got 'cuda:99'"):
        fp.load_checkpoint(tmp_path / "nowhere", model, device="cuda:99")
