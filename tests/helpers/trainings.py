"""Three epochs on a tiny network by Lightning and by transformers' Trainer, their weights kept at each epoch's end."""

import math
from collections.abc import Callable
from typing import Any

import lightning.pytorch as pl
import torch
import transformers
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import flatprobe as fp
from tests.helpers import foreign

STEPS = 3  # an epoch
INPUTS = torch.randn(12, 4, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(12) % 3


class Module(pl.LightningModule):
    """Batch normalisation and dropout, and losses kept with their graphs until the epoch has ended."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.3), nn.Linear(8, 3))
        self.kept: list[Any] = []

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.net(inputs)

    def training_step(self, batch: tuple[torch.Tensor, torch.Tensor], _index: int) -> torch.Tensor:
        loss = nn.functional.cross_entropy(self(batch[0]), batch[1])
        if not torch.compiler.is_compiling():
            self.kept.append(loss)
        return loss

    def on_train_epoch_end(self) -> None:
        self.kept.clear()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


class LightningRun:
    """Three epochs of three steps by Lightning."""

    data = fp.LabelledData(INPUTS, LABELS)
    hook = staticmethod(lambda probes, **options: fp.callbacks.lightning.ProbeEvery(probes, **options))

    def __init__(self, hook: Any = None, *, others: Any = (), wrap: Callable[[Any], Any] = lambda m: m, **options: Any):
        torch.manual_seed(0)
        self.states: dict[int, Any] = {}
        self.model = Module()
        run = self

        class Recorder(pl.Callback):
            def on_train_epoch_end(self, trainer: Any, _pl_module: Any) -> None:
                run.states[trainer.current_epoch + 1] = saved(run.model)

        hooks = [*others, *([hook] if hook else []), Recorder()]
        settings: dict[str, Any] = {
            "max_epochs": 3, "logger": False, "enable_checkpointing": False, "enable_progress_bar": False,
            "enable_model_summary": False, "accelerator": "cpu", "devices": 1, "log_every_n_steps": 1,
            "callbacks": hooks,
        }  # fmt: skip
        self.trainer = pl.Trainer(**settings | options)
        self.trainer.fit(wrap(self.model), DataLoader(TensorDataset(INPUTS, LABELS), batch_size=4, shuffle=True))

    @staticmethod
    def fresh() -> nn.Module:
        return Module()


class TransformersRun:
    """Three epochs of three steps by transformers' Trainer."""

    data = foreign.data("bert")
    hook = staticmethod(lambda probes, **options: fp.callbacks.transformers.ProbeEvery(probes, **options))

    def __init__(self, hook: Any = None, *, others: Any = (), attach: bool = True, **options: Any):
        self.states: dict[int, Any] = {}
        self.model = self.fresh().train()
        run = self

        class Recorder(transformers.TrainerCallback):
            def on_epoch_end(self, _args: Any, state: Any, _control: Any, **_kwargs: Any) -> None:
                run.states[math.ceil(state.epoch)] = saved(run.model)

        options = {"max_epochs": 3} | options
        settings: dict[str, Any] = {
            "output_dir": "out", "num_train_epochs": options.pop("max_epochs"), "per_device_train_batch_size": 4,
            "report_to": [], "disable_tqdm": True, "use_cpu": True, "save_strategy": "no", "logging_strategy": "epoch",
            "dataloader_pin_memory": False, "learning_rate": 1e-2, "per_device_eval_batch_size": 4,
        }  # fmt: skip
        inputs = self.data.inputs
        rows = [{n: v[i] for n, v in inputs.items()} | {"labels": self.data.labels[i]} for i in range(len(self.data))]
        self.trainer = transformers.Trainer(
            self.model, transformers.TrainingArguments(**settings | options), train_dataset=rows, eval_dataset=rows,
            callbacks=[*others, Recorder()],
        )  # fmt: skip
        if hook and attach:
            hook.attach(self.trainer)
        elif hook:
            self.trainer.add_callback(hook)
        self.trainer.train()

    @staticmethod
    def fresh() -> nn.Module:
        return foreign.bert().float()


def saved(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def risk(data: fp.LabelledData) -> Callable[[nn.Module], fp.Risk]:
    return lambda model: fp.EmpiricalRisk(model, data)()


def assert_measured(run: Any, hook: Any, epochs: list[int]) -> None:
    """What was measured at these epochs, and no others, is the risk at the weights that the training had then."""
    assert [epoch for epoch, _, _ in hook.results] == epochs
    for epoch, name, result in hook.results:
        reference = run.fresh().eval()
        reference.load_state_dict(run.states[epoch])
        assert name == "risk"
        assert result == risk(run.data)(reference)
