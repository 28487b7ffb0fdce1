"""Probing in trainings by Lightning and by transformers: at which epochs and weights, and nothing changed by it."""

import math
import random
import re
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
import transformers
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import flatprobe as fp
from tests.helpers import foreign
from tests.helpers.trainings import INPUTS, LABELS, STEPS, LightningRun, TransformersRun, assert_measured, risk

pytestmark = [  # what Lightning and torch say of each other, or of the machine, at every fit
    pytest.mark.filterwarnings(rf"ignore:{text}")
    for text in (
        r"`isinstance\(treespec, LeafSpec\)` is deprecated:FutureWarning",  # Lightning asks torch's pytree so
        "The 'train_dataloader' does not have many workers:UserWarning",  # on machines of more cores
        "GPU available but not used:UserWarning",
        "The number of training batches:UserWarning",  # fewer than the default logging interval, in the page's
        "Starting from v1.9.0, `tensorboardX` has been removed:UserWarning",  # CSV files are the page's logs then
    )
]


@pytest.fixture(autouse=True)
def _quiet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers.utils import logging

    logging.set_verbosity_error()
    monkeypatch.chdir(tmp_path)


Run = type[LightningRun] | type[TransformersRun]
both = pytest.mark.parametrize("run", [LightningRun, TransformersRun], ids=["lightning", "transformers"])


@both
def test_probes_the_weights_of_each_kth_epoch_and_of_the_last(run: Run) -> None:
    hook = run.hook({"risk": risk(run.data)}, epochs=2)
    done = run(hook)
    assert_measured(done, hook, [2, 3])
    frame = hook.to_frame()
    assert list(frame.columns) == ["epoch", "probe", "figure", "value"]
    assert list(frame.figure) == ["loss", "error"] * 2
    assert list(frame.value) == [getattr(result, name) for _, _, result in hook.results for name in ("loss", "error")]
    hook = run.hook({"risk": risk(run.data)}, epochs=3)
    assert_measured(run(hook), hook, [3])  # the last is not probed twice


def destructive(model: nn.Module) -> float:
    """What a careless probe might do to the network, its own copy of it, and to the random states."""
    random.random(), np.random.rand(), torch.rand(3)
    model.train()
    for value in model.state_dict().values():
        value.zero_()
    for value in model.parameters():
        assert value.grad is None
        value.requires_grad_(False)
    return float(torch.rand(()))


@both
def test_the_training_is_the_same_to_the_last_bit(run: Run) -> None:
    random.seed(0), np.random.seed(0)
    plain = run()
    states = (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state())
    random.seed(0), np.random.seed(0)
    hook = run.hook({"destructive": destructive, "risk": risk(run.data)}, epochs=1)
    probed = run(hook)
    assert random.getstate() == states[0]  # before beartype draws from it, for its checks of `results`
    assert np.random.get_state()[1].tolist() == states[1]
    assert torch.equal(torch.get_rng_state(), states[2])
    assert [epoch for epoch, _, _ in hook.results] == [1, 1, 2, 2, 3, 3]
    for epoch in (1, 2, 3):
        for name, value in plain.states[epoch].items():
            assert torch.equal(value, probed.states[epoch][name]), (epoch, name)
    for one, other in zip(plain.model.parameters(), probed.model.parameters(), strict=True):
        assert one.requires_grad == other.requires_grad
        assert (one.grad is None) == (other.grad is None)
        assert one.grad is None or torch.equal(one.grad, other.grad)
    assert [m.training for m in plain.model.modules()] == [m.training for m in probed.model.modules()]


@both
def test_a_probe_that_raises_is_named_and_the_training_goes_on(run: Run) -> None:
    calls: list[int] = []

    def sometimes(model: nn.Module) -> dict[str, float]:
        calls.append(len(calls))
        if len(calls) > 1:
            msg = "too flat"
            raise ValueError(msg)
        return {"mean": 1.0}

    probes = {"bad": sometimes, "text": lambda _: "3", "risk": risk(run.data)}
    hook = run.hook(probes, epochs=2)
    with pytest.warns(RuntimeWarning) as caught:
        done = run(hook)
    messages = [str(warning.message) for warning in caught if warning.category is RuntimeWarning]
    text = "(a probe must return a flatprobe result, a number, or a mapping of names to numbers, got a str)"
    assert [
        message.removesuffix(". The training goes on, and NaN is recorded for the probe") for message in messages
    ] == [
        f"the probe 'text' raised TypeError after epoch 2 {text}",
        "the probe 'bad' raised ValueError after epoch 3 (too flat)",
        f"the probe 'text' raised TypeError after epoch 3 {text}",
    ]
    assert set(done.states) == {1, 2, 3}
    frame = hook.to_frame().set_index(["epoch", "probe", "figure"]).value
    assert frame[2, "bad", "mean"] == 1.0
    assert math.isnan(frame[3, "bad", "mean"])  # under the name that it had
    assert math.isnan(frame[2, "text", "value"])
    assert frame[3, "risk", "loss"] == hook.results[-1][2].loss
    assert [math.isnan(r) for _, n, r in hook.results if n != "risk" and isinstance(r, float)] == [True] * 3


@both
def test_an_epoch_cut_short_counts_as_one_and_is_the_last(run: Run) -> None:
    hook = run.hook({"risk": risk(run.data)}, epochs=3)
    assert_measured(run(hook, max_steps=STEPS + 1), hook, [2])


@both
def test_another_training_with_the_same_callback_is_probed_too(run: Run) -> None:
    hook = run.hook({"risk": risk(run.data)}, epochs=5)
    run(hook, max_epochs=1)
    run(hook, max_epochs=1)
    assert [epoch for epoch, _, _ in hook.results] == [1, 1]


def test_lightning_logs_each_figure_in_its_epochs_row() -> None:
    import pandas as pd
    from lightning.pytorch.loggers import CSVLogger

    data = LightningRun.data
    hook = LightningRun.hook({"risk": risk(data), "one": lambda _: np.float32(1)}, epochs=2)
    done = LightningRun(hook, logger=CSVLogger("."))
    rows = pd.read_csv(Path(done.trainer.logger.log_dir) / "metrics.csv").set_index("epoch")
    assert list(rows.index) == [1, 2]  # Lightning counts them from 0
    assert list(rows.step) == [2 * STEPS - 1, 3 * STEPS - 1]
    assert list(rows.one) == [1, 1]
    assert rows["risk/loss"].tolist() == pytest.approx([r.loss for _, n, r in hook.results if n == "risk"], rel=1e-6)
    assert done.trainer.callback_metrics["risk/loss"] == pytest.approx(hook.results[0][2].loss, rel=1e-6)  # float32


def test_lightning_probes_what_another_callback_stopped() -> None:
    class Stop(pl.Callback):
        def on_train_epoch_end(self, trainer: Any, _pl_module: Any) -> None:
            trainer.should_stop = True

    hook = LightningRun.hook({"risk": risk(LightningRun.data)}, epochs=2)
    assert_measured(LightningRun(hook, others=[Stop()]), hook, [1])


def test_lightning_probes_a_part_and_what_was_compiled() -> None:
    data = LightningRun.data
    whole, part = (LightningRun.hook({"risk": risk(data)}, epochs=2, network=network) for network in (None, "net"))
    done = LightningRun(whole, others=[part])
    assert_measured(done, whole, [2, 3])
    assert part.results == whole.results
    compiled = LightningRun.hook({"risk": risk(data)}, epochs=2)
    assert_measured(LightningRun(compiled, wrap=lambda m: torch.compile(m, backend="eager")), compiled, [2, 3])
    in_place = LightningRun.hook({"risk": risk(data)}, epochs=2)
    assert_measured(LightningRun(in_place, wrap=lambda m: m.compile(backend="eager") or m), in_place, [2, 3])
    with pytest.raises(ValueError, match=r"network must be a submodule of .*Module, got 'backbone'. It has net"):
        LightningRun(LightningRun.hook({"risk": risk(data)}, epochs=2, network="backbone"))


def test_lightnings_trainer_is_not_copied() -> None:
    found: list[Any] = []

    class Trained(pl.Callback):
        def __deepcopy__(self, memo: Any) -> None:
            pytest.fail("the trainer's callbacks were copied")

    hook = LightningRun.hook({"copy": lambda model: float(found.append(model) is None)}, epochs=3)
    done = LightningRun(hook, others=[Trained()])
    assert found[0]._trainer is None
    assert done.model.trainer is done.trainer


def test_transformers_logs_and_keeps_its_own_logs() -> None:
    plain = TransformersRun().trainer.state.log_history
    hook = TransformersRun.hook({"risk": risk(TransformersRun.data), "one": lambda _: 1}, epochs=2)
    logs = TransformersRun(hook).trainer.state.log_history
    ours = [row for row in logs if "one" in row]
    assert [row["epoch"] for row in ours] == [2, 3]
    assert [row["step"] for row in ours] == [2 * STEPS, 3 * STEPS]
    assert [row["risk/loss"] for row in ours] == [r.loss for _, n, r in hook.results if n == "risk"]
    assert "train_loss" in logs[-1]  # the Trainer's last word: loggers that close when it ends have had ours before
    losses = [row["loss"] for row in logs if "loss" in row]
    assert len(losses) == 3
    assert losses == [row["loss"] for row in plain if "loss" in row]


def test_transformers_without_attach_says_that_it_cannot_log() -> None:
    hook = TransformersRun.hook({"risk": risk(TransformersRun.data)}, epochs=2)
    with pytest.warns(RuntimeWarning, match=r"not logged. Call hook\.attach\(trainer\) before trainer\.train\(\)"):
        done = TransformersRun(hook, attach=False)
    assert_measured(done, hook, [2, 3])
    assert not any("risk/loss" in row for row in done.trainer.state.log_history)


def test_transformers_probes_the_last_weights_and_not_the_best() -> None:
    class Stop(transformers.TrainerCallback):
        def on_evaluate(self, _args: Any, state: Any, control: Any, **_kwargs: Any) -> None:
            control.should_training_stop = state.epoch == 3

    options = {"eval_strategy": "epoch", "save_strategy": "epoch", "load_best_model_at_end": True, "max_epochs": 4,
               "metric_for_best_model": "eval_loss", "greater_is_better": True}  # fmt: skip
    hook = TransformersRun.hook({"risk": risk(TransformersRun.data)}, epochs=2)
    done = TransformersRun(hook, others=[Stop()], **options)
    assert done.trainer.state.best_global_step != 3 * STEPS
    assert_measured(done, hook, [2, 3])
    done.trainer.evaluate()
    assert [epoch for epoch, _, _ in hook.results] == [2, 3]
    early = TransformersRun.hook({"risk": risk(TransformersRun.data)}, epochs=2)
    with pytest.warns(RuntimeWarning) as caught:
        done = TransformersRun(others=[early, Stop()], **options)
    assert_measured(done, early, [2])
    assert "weights after the last epoch, 3, are not probed, since the Trainer has already loaded the best" in str(
        caught[-1].message
    )


def test_transformers_mixed_precision_is_probed_in_the_weights_precision() -> None:
    hook = TransformersRun.hook({"risk": risk(TransformersRun.data)}, epochs=2)
    done = TransformersRun(hook, bf16=True)
    assert "_original_forward" in vars(done.model)  # the training's own forward passes are in bfloat16
    assert_measured(done, hook, [2, 3])


@both
def test_the_pages_example_runs_as_it_stands(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    page = Path(__file__).parents[2] / "docs" / "how-to" / "callbacks.md"
    blocks = re.findall(r"```python\n(.*?)```", page.read_text(), flags=re.DOTALL)
    library = "lightning" if run is LightningRun else "transformers"
    (block,) = [block for block in blocks if f"flatprobe.callbacks.{library}" in block]
    names: dict[str, Any] = {"fp": fp, "data": run.data, "network": run.fresh()}
    if run is LightningRun:
        names |= {"loader": DataLoader(TensorDataset(INPUTS, LABELS), batch_size=4)}
    else:
        rows = [{"input_ids": ids, "labels": label} for ids, label in zip(foreign.ids(), foreign.labels(), strict=True)]
        arguments = transformers.TrainingArguments(
            "out", num_train_epochs=20, report_to=[], use_cpu=True, save_strategy="no", dataloader_pin_memory=False
        )
        names |= {"network": run.fresh(), "arguments": arguments, "rows": rows}
    exec(block, names)
    assert sorted({epoch for epoch, _, _ in names["hook"].results}) == [5, 10, 15, 20]
    assert {"mean", "censored"} <= {*names["frame"].figure}
