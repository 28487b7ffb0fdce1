"""The names of the classes: data and networks that number the same names in other orders do not meet unnoticed."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import flatprobe as fp
from flatprobe.cli.reading import data_of
from flatprobe.cli.samples import numbered_for
from flatprobe.network.class_names import class_names_of, find_misplaced
from flatprobe.probes.per_sample import PerSample
from tests.helpers import foreign

CLASSES = ["ant", "bee", "cat"]
INPUTS = torch.randn(30, 4, generator=torch.Generator().manual_seed(0))
LABELS = INPUTS[:, :3].argmax(1)


def named(names: list[str] | None, labels: torch.Tensor = LABELS) -> fp.LabelledData:
    return fp.LabelledData(INPUTS, labels, classes=3, source={} if names is None else {"class_names": names})


def trained(out: Path | None = None, **arguments: Any) -> fp.TrainingRun:
    torch.manual_seed(0)
    return fp.train(nn.Linear(4, 3), named(CLASSES), epochs=1, out=out, **arguments)


OTHER = named(["bee", "cat", "ant"], (LABELS - 1) % 3)  # the same samples and names, numbered otherwise


# Renumbering: a permutation by hand.


def test_classes_are_renumbered_by_name() -> None:
    renumbered = OTHER.with_class_names(CLASSES)
    assert torch.equal(renumbered.labels, LABELS)
    assert renumbered.source["class_names"] == CLASSES
    assert renumbered.fingerprint == named(CLASSES).fingerprint
    assert OTHER.source["class_names"] == ["bee", "cat", "ant"]
    more = OTHER.with_class_names(["dog", *CLASSES])
    assert (more.classes, more.labels.tolist()) == (4, (LABELS + 1).tolist())
    assert torch.equal(more.head(7).labels, LABELS[:7] + 1)
    streamed = fp.LabelledData.from_dataset(
        torch.utils.data.TensorDataset(INPUTS, OTHER.labels), source=OTHER.source
    ).with_class_names(CLASSES)
    assert torch.equal(torch.cat([batch.labels for batch in streamed.batches(7)]), LABELS)


def test_names_that_do_not_tell_the_classes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"must have class names, got none. Make them with source=\{'class_names'"):
        named(None).with_class_names(CLASSES)
    with pytest.raises(ValueError, match=r"names must hold each class .*, and 'cat' is not, got 'ant', 'bee'"):
        named(CLASSES).with_class_names(["ant", "bee"])
    with pytest.raises(ValueError, match="names must hold each class of the data once, and 'ant' is not"):
        named(CLASSES).with_class_names(["ant", *CLASSES])
    with pytest.raises(ValueError, match="'number 2, which has no name,' is not"):
        named(CLASSES[:2]).with_class_names(CLASSES)
    fewer = fp.LabelledData(INPUTS[:2], torch.tensor([0, 0]), classes=3, source={"class_names": CLASSES})
    assert fewer.with_class_names(["bee", "ant"]).labels.tolist() == [1, 1]  # no sample of the others


# Where data meet a network.

MEETINGS: dict[str, Callable[[nn.Module, fp.LabelledData], object]] = {
    "risk": lambda model, data: fp.EmpiricalRisk(model, data),
    "margins": lambda model, data: fp.functional_margins(model, data),
    "geometric": lambda model, data: fp.geometric_margins(model, data),
    "robustness": lambda model, data: fp.gaussian_robustness(model, data),
    "smoothing": lambda model, data: fp.smoothed_certificate(model, data, draws=10, selection=2),
    "adversarial": lambda model, data: fp.adversarial_accuracy(model, data, budgets=[0.1]),
    "jacobian_maximum": lambda model, data: fp.jacobian_maximum(model, data),
    "audit": lambda model, data: fp.audit(model, data, probes=["functional_margins"]),
    "train": lambda model, data: fp.train(model, data, epochs=1),
    "wrapped": lambda model, data: fp.functional_margins(fp.Normalised(model, 0.0, 1.0).eval(), data),
}


@pytest.mark.parametrize("name", MEETINGS)
def test_the_same_names_in_another_order_are_refused(name: str) -> None:
    model = trained().model
    message = r"class 'bee' is number 0 of the data and number 1 of the network; .*data.with_class_names\(\[\*model\."
    with pytest.raises(ValueError, match=message):
        MEETINGS[name](model, OTHER)
    MEETINGS[name](model, OTHER.with_class_names(model.class_names))  # the fix


def test_names_are_compared_as_far_as_both_know_them() -> None:
    model = trained().model
    for names in (None, CLASSES, ["n01", "n02", "n03"], [*CLASSES[:2], "bee"]):  # unknown, same, another way, twice
        if names is None or len({*names}) == 3:
            fp.functional_margins(model, named(names))
    fp.functional_margins(nn.Linear(4, 3).eval(), OTHER)
    with pytest.warns(UserWarning, match="1 of the 3 classes of the data, such as 'cow', are not among the 3 that the"):
        fp.functional_margins(model, named(["ant", "bee", "cow"]))
    assert find_misplaced(["a", "b", "b"], ["b", "a", "b"]) == "a"
    assert find_misplaced(["x", "a"], ["a"]) == find_misplaced(["a"], ["x", "a"]) == "a"
    assert find_misplaced(["b", "b", "a"], ["c", "b", "a"]) is None  # b has two numbers


def test_a_run_carries_the_names_and_so_does_its_folder(tmp_path: Path) -> None:
    run = trained(tmp_path / "run")
    assert run.model.class_names == CLASSES
    for model in (fp.load_checkpoint(run.path, nn.Linear(4, 3)), fp.TrainingRun.load(run.path, nn.Linear(4, 3)).model):
        assert class_names_of(model) == (CLASSES, "class_names")
        with pytest.raises(ValueError, match="class 'bee' is number 0 of the data"):
            fp.EmpiricalRisk(model, OTHER)
    (run.path / "config.json").write_text(json.dumps({"data": "another program's"}))
    assert class_names_of(fp.load_checkpoint(run.path, nn.Linear(4, 3))) is None


def test_an_attribute_of_another_kind_is_left_as_it_is() -> None:
    class Own(nn.Linear):
        def class_names(self) -> int:
            return 3

    model = fp.train(Own(4, 3), named(CLASSES), epochs=1).model
    assert model.class_names() == 3
    assert class_names_of(model) is None


def test_validation_and_test_data_are_compared_with_those_that_are_trained_on() -> None:
    with pytest.raises(ValueError, match="class 'bee' is number 0 of the data and number 1 of the network"):
        trained(validation=OTHER)
    assert "validation_loss" in trained(validation=OTHER.with_class_names(CLASSES)).history[0]
    with pytest.raises(
        ValueError, match="test must be samples that the network takes: the class 'bee' is number 0 of the data"
    ):
        fp.tune(
            nn.Linear(4, 3),
            named(CLASSES),
            setting="weight_decay",
            strengths=[0.1, 0.2],
            epochs=1,
            test=OTHER,
        )


def test_names_in_a_transformers_configuration_are_compared() -> None:
    model, data = foreign.vit(), foreign.data("vit")
    count = model.config.num_labels
    names = [f"kind {k}" for k in range(count)]
    model.config.id2label = dict(enumerate(names))
    expected = fp.functional_margins(model, fp.LabelledData(data.inputs, data.labels, classes=count))
    swapped = fp.LabelledData(data.inputs, count - 1 - data.labels, classes=count, source={"class_names": names[::-1]})
    with pytest.raises(ValueError, match=r"data.with_class_names\(\[\*model.config.id2label.values\(\)\]\)"):
        fp.functional_margins(model, swapped)
    found: PerSample = fp.functional_margins(model, swapped.with_class_names([*model.config.id2label.values()]))
    assert torch.equal(found.values, expected.values)


# The command line renumbers.


def test_the_command_line_renumbers_by_name() -> None:
    model = trained().model
    numbered, changed = numbered_for(model, OTHER)
    assert changed
    assert torch.equal(numbered.labels, LABELS)
    for data in (named(CLASSES), named(None), named(["bee", "ant", "cow"])):
        assert numbered_for(model, data) == (data, False)


def test_a_run_on_renumbered_data_is_recognised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = {"name": "set", "split": "train", "class_names": OTHER.source["class_names"]}
    stored = fp.LabelledData(INPUTS, OTHER.labels, classes=3, source=source)
    monkeypatch.setattr("flatprobe.data.load.load_data", lambda *_, **__: stored)
    data = stored.with_class_names(CLASSES).with_random_labels(0.5, seed=1)
    run = fp.train(nn.Linear(4, 3), data, epochs=1, out=tmp_path / "run")
    assert data_of(run.path, None, None, None).fingerprint == data.fingerprint
    assert len(data_of(run.path, None, None, 25)) == 25
