"""The command `inspect`: what is in a checkpoint, without its architecture."""

import re
from pathlib import Path

import pytest
import torch
from torch import nn

import flatprobe as fp
from flatprobe.cli import main
from flatprobe.cli.networks import NetworkOptions, load_networks
from tests.helpers import foreign, zoo


def shown(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    with pytest.raises(SystemExit) as done:
        main(["inspect", *words])
    assert done.value.code in {0, None}
    return re.sub(r"[\s│]+", " ", capsys.readouterr().out)


def test_format_keys_and_needs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    zoo.write(tmp_path)
    text = shown(capsys, str(tmp_path / "lightning.ckpt"), "--tensors")
    assert f"torch.save, {(tmp_path / 'lightning.ckpt').stat().st_size:,} bytes" in text
    assert "key state_dict 11 tensors (9 float32, 2 int64), 1,516 floating numbers" in text
    assert "left out hyper_parameters (argparse.Namespace)" in text
    assert "not in the file: give it by --model" in text
    assert "model.conv.weight 4 x 1 x 3 x 3 float32" in text
    assert "best_model_score" not in text  # of a callback
    text = shown(capsys, str(tmp_path / "timm"))
    assert "mean [0.13], std [0.31] image size 8 x 8" in text
    assert "timm calls it net" in text
    assert "safetensors in 2 files" in shown(capsys, str(tmp_path / "sharded"))
    text = shown(capsys, str(tmp_path / "net_and_ema.pt"))
    assert "key net 9 tensors" in text
    assert "key ema 9 tensors" in text


def test_networks_that_are_known(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = fp.LabelledData(torch.rand(8, 1, 8, 8), torch.arange(8))
    fp.train(fp.models.mlp((1, 8, 8), widths=(4,)), data, epochs=1, out=tmp_path / "own")
    assert "mlp of flatprobe: nothing else is needed" in shown(capsys, str(tmp_path / "own"))
    foreign.vit().save_pretrained(tmp_path / "vit")
    assert "ViTForImageClassification of transformers: nothing else" in shown(capsys, str(tmp_path / "vit"))
    foreign.bert().bert.save_pretrained(tmp_path / "base")
    assert "transformers calls it ['BertModel']" in shown(capsys, str(tmp_path / "base"))


def test_what_is_broken(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({"w": torch.tensor([1.0, float("nan")])}, tmp_path / "nan.pt")
    assert "1 tensor (1 float32), 2 floating numbers; NaN or infinite values in w" in shown(
        capsys, str(tmp_path / "nan.pt")
    )
    torch.save(nn.Linear(2, 3), tmp_path / "module.pt")
    with pytest.raises(SystemExit) as caught:
        main(["inspect", str(tmp_path)])
    assert caught.value.code == 1  # one of two is refused
    assert "refused the checkpoint" in " ".join(capsys.readouterr().out.replace("│", " ").split())
    with pytest.raises(SystemExit, match="2"):
        main(["inspect", str(tmp_path / "module.pt")])
    assert "content = torch.load('module.pt', weights_only=False)" in capsys.readouterr().err
    torch.save({"\x1b[31m[red]": torch.zeros(1)}, tmp_path / "colour.pt")
    text = shown(capsys, str(tmp_path / "colour.pt"), "--tensors")
    assert "\x1b" not in text
    assert "[red]" in text


@pytest.mark.parametrize("config", ["[1]", "{", '{"lr": 1}'])
def test_a_config_of_another_program_is_in_nobodys_way(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], config: str
) -> None:
    torch.save(zoo.network().state_dict(), tmp_path / "a.pt")
    (tmp_path / "config.json").write_text(config)
    text = shown(capsys, str(tmp_path / "a.pt"))
    assert ("config.json has lr" in text) == ("lr" in config)
    [one] = load_networks([tmp_path / "a.pt"], NetworkOptions(model="tests.helpers.zoo:Net"))
    assert one.network is not None
