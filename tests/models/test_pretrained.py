"""Folders that transformers wrote: loaded without code, whole, or refused."""

import json
import sys
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import nn

import flatprobe as fp
from tests.helpers import foreign


@pytest.fixture(autouse=True)
def _quiet() -> None:
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", ["vit", "bert"])
def test_a_saved_classifier_comes_back_in_its_own_precision(name: str, dtype: torch.dtype, tmp_path: Path) -> None:
    model = foreign.MODELS[name]().to(dtype)
    model.save_pretrained(tmp_path)
    state = torch.get_rng_state()
    loaded = fp.load_checkpoint(tmp_path)
    assert torch.equal(torch.get_rng_state(), state)
    assert loaded.training is False
    assert {value.dtype for value in loaded.parameters()} == {dtype}
    data = foreign.data(name)
    assert fp.EmpiricalRisk(loaded, data)() == fp.EmpiricalRisk(model, data)()
    into = fp.load_checkpoint(tmp_path, foreign.MODELS[name](seed=1))  # in the given model's precision
    assert {value.dtype for value in into.parameters()} == {torch.float64}
    assert all(torch.equal(value, into.state_dict()[key].to(dtype)) for key, value in model.state_dict().items())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", ["vit", "bert"])
def test_weights_in_pickles_are_read_without_code(name: str, dtype: torch.dtype, tmp_path: Path) -> None:
    """Older folders hold `pytorch_model.bin`, whole or in parts, under the names of that time."""
    model = foreign.MODELS[name]().to(dtype)
    model.save_pretrained(tmp_path)
    state = safetensors.torch.load_file(tmp_path / "model.safetensors")
    (tmp_path / "model.safetensors").unlink()
    torch.save(state, tmp_path / "pytorch_model.bin")
    loaded = fp.load_checkpoint(tmp_path)
    assert {value.dtype for value in loaded.parameters()} == {dtype}
    assert all(torch.equal(value, loaded.state_dict()[key]) for key, value in model.state_dict().items())
    torch.save({"model": state, "ema": state}, tmp_path / "pytorch_model.bin")
    with pytest.raises(ValueError, match=r"holds several state_dicts: model, ema; .* key= \(--key\)"):
        fp.load_checkpoint(tmp_path)
    (tmp_path / "pytorch_model.bin").unlink()
    parts = [dict([*state.items()][:9]), dict([*state.items()][9:])]
    for k, part in enumerate(parts):
        torch.save(part, tmp_path / f"part-{k}.bin")
    places = {key: f"part-{k}.bin" for k, part in enumerate(parts) for key in part}
    (tmp_path / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": places}))
    loaded = fp.load_checkpoint(tmp_path)
    assert all(torch.equal(value, loaded.state_dict()[key]) for key, value in model.state_dict().items())
    torch.save({"x": Path("a"), "w": print}, tmp_path / "part-0.bin")
    with pytest.raises(ValueError, match="expected a state_dict"):
        fp.load_checkpoint(tmp_path)
    changed(tmp_path, architectures=["NoSuchForImageClassification"])
    torch.save(parts[0], tmp_path / "part-0.bin")
    with pytest.raises(ValueError, match="it has no network NoSuchForImageClassification"):
        fp.load_checkpoint(tmp_path)


def test_language_models_and_taggers(tmp_path: Path) -> None:
    import transformers

    sizes = {"vocab_size": 20, "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    tagger = transformers.BertForTokenClassification(
        transformers.BertConfig(**sizes, intermediate_size=8, max_position_embeddings=8, num_labels=3)
    ).eval()
    writer = transformers.GPT2LMHeadModel(
        transformers.GPT2Config(
            vocab_size=20, n_positions=8, n_embd=8, n_layer=1, n_head=2, bos_token_id=0, eos_token_id=0
        )
    ).eval()
    llama = transformers.LlamaForCausalLM(transformers.LlamaConfig(**sizes, intermediate_size=8)).eval()
    ids = torch.arange(8)[None]
    for k, model in enumerate((tagger, writer, llama)):
        model.save_pretrained(tmp_path / str(k))
        loaded = fp.load_checkpoint(tmp_path / str(k))
        assert type(loaded) is type(model)
        assert torch.equal(loaded(ids).logits, model(ids).logits)


def changed(folder: Path, **entries: object) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | entries))


def test_what_is_no_whole_classifier_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    foreign.bert().bert.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"holds a BertModel; expected one of \.\.\.ForImageClassification"):
        fp.load_checkpoint(tmp_path)
    changed(tmp_path, architectures=["BertForSequenceClassification"])
    with pytest.raises(
        ValueError, match=r"lacks 2 weights of its Bert.*: classifier\.bias, classifier\.weight; .*base"
    ):
        fp.load_checkpoint(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"\0" * 20)
    with pytest.raises(ValueError, match=r"transformers cannot load .* expected what save_pretrained wrote"):
        fp.load_checkpoint(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(ValueError, match=r"transformers cannot load .* \(it holds none of model\.safetensors, .*\.bin"):
        fp.load_checkpoint(tmp_path)
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ImportError, match="written by transformers, which is not installed: pip install transformers"):
        fp.load_checkpoint(tmp_path)


def test_code_beside_the_weights_is_not_run(tmp_path: Path) -> None:
    foreign.bert().save_pretrained(tmp_path)
    (tmp_path / "modeling.py").write_text("raise SystemExit('this code was run')")
    changed(tmp_path, model_type="mine", auto_map={"AutoModelForSequenceClassification": "modeling.Mine",
                                                   "AutoConfig": "modeling.MineConfig"})  # fmt: skip
    with pytest.raises(ValueError, match="transformers cannot load"):
        fp.load_checkpoint(tmp_path)


def test_a_run_folders_config_is_none_of_transformers(tmp_path: Path) -> None:
    data = fp.LabelledData(torch.eye(4), torch.arange(4))
    run = fp.train(nn.Linear(4, 4), data, epochs=1, out=tmp_path)
    assert torch.equal(fp.load_checkpoint(tmp_path, nn.Linear(4, 4)).weight, run.model.weight)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    foreign.vit().save_pretrained(folder)
    return folder


@pytest.mark.parametrize("target", ["weights.bin", "../outside.bin", "../outside.safetensors", "/etc/passwd"])
def test_no_file_is_read_that_is_a_pickle_or_elsewhere(saved: Path, target: str) -> None:
    state = foreign.vit().state_dict()
    torch.save(state, saved / "weights.bin")
    torch.save(state, saved.parent / "outside.bin")
    (saved / "model.safetensors").rename(saved.parent / "outside.safetensors")
    (saved / "model.safetensors.index.json").write_text(
        json.dumps({"metadata": {}, "weight_map": dict.fromkeys(state, target)})
    )
    with pytest.raises(
        ValueError, match=r"model names .* as a file of weights; expected a safetensors file in the folder"
    ):
        fp.load_checkpoint(saved)
    (saved / "model.safetensors").symlink_to(saved.parent / "outside.safetensors")
    with pytest.raises(ValueError, match=r"names 'model\.safetensors' as a file of weights"):
        fp.load_checkpoint(saved)


def test_the_links_of_the_hubs_cache_are_followed(saved: Path) -> None:
    snapshot, blobs = saved.parent / "hub" / "snapshots" / "abc", saved.parent / "hub" / "blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    for name in ("config.json", "model.safetensors"):
        (saved / name).rename(blobs / name)
        (snapshot / name).symlink_to(f"../../blobs/{name}")
    assert type(fp.load_checkpoint(snapshot)).__name__ == "ViTForImageClassification"


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"architectures": "ViTForImageClassification"}, "holds a network of 'ViTForImageClassification'; expected"),
        ({"architectures": [1]}, r"holds a network of \[1\]; expected one of"),
        ({"num_hidden_layers": 10**9}, r"asks for num_hidden_layers = 1000000000, and its weights are \d+ tensors"),
        ({"num_labels": 10**9}, "asks for num_labels = 1000000000"),
        ({"attn_implementation": "someone/kernel"}, "names attn_implementation = 'someone/kernel'"),
        ({"transformers_weights": "adapter_model.bin"}, "names transformers_weights"),
        ({"hidden_size": "wide"}, "(?s)transformers cannot load .* expected what save_pretrained wrote"),
        ({"model_type": ["vit"]}, "transformers cannot load .* expected what save_pretrained wrote"),
    ],
)  # fmt: skip
def test_a_config_of_something_else_is_refused_at_once(saved: Path, entries: dict[str, object], message: str) -> None:
    changed(saved, **entries)
    with pytest.raises(ValueError, match=message):
        fp.load_checkpoint(saved)


def test_an_adapter_is_no_classifier(saved: Path) -> None:
    (saved / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "/etc"}))
    with pytest.raises(ValueError, match="holds an adapter of another network"):
        fp.load_checkpoint(saved)
