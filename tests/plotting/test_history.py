"""Pictures of training histories: the lines are the rows, and nothing is dropped."""

import inspect
import math
from dataclasses import dataclass, field

import numpy as np
import pytest

import flatprobe as fp
from flatprobe.plotting import draw, history
from tests.helpers import cases


@dataclass
class Run:
    """A run with these training losses and accuracies, and validation losses that are twice as large."""

    losses: list[float]
    accuracies: list[float]
    validated: bool = False
    history: list[dict[str, float]] = field(init=False)

    def __post_init__(self) -> None:
        pairs = enumerate(zip(self.losses, self.accuracies, strict=True), start=1)
        self.history = [{"epoch": k, "train_loss": a, "train_accuracy": b} for k, (a, b) in pairs]
        if self.validated:
            for row in self.history:
                row |= {"validation_loss": 2 * row["train_loss"], "validation_accuracy": row["train_accuracy"] / 2}


def test_closed_form_the_lines_are_the_rows_of_the_history() -> None:
    run = Run([2.0, 0.5, 0.01], [0.2, 0.75, 1.0], validated=True)
    error = draw(run)
    solid, dashed = error.lines
    assert (solid.get_linestyle(), dashed.get_linestyle()) == ("-", "--")
    assert list(solid.get_xdata()) == [1, 2, 3]
    assert list(solid.get_ydata()) == pytest.approx([0.8, 0.25, 0])
    assert list(dashed.get_ydata()) == pytest.approx([0.9, 0.625, 0.5])
    assert (error.get_yscale(), error.get_ylim()[0]) == ("linear", 0)
    loss = draw(run, quantity="loss")
    assert [list(line.get_ydata()) for line in loss.lines] == [[2.0, 0.5, 0.01], [4.0, 1.0, 0.02]]
    assert loss.get_yscale() == "log"
    assert loss.get_ylabel() == "loss: training (solid), validation (dashed)"


def test_property_runs_of_one_picture_have_a_colour_each_and_their_names_in_the_legend() -> None:
    runs = {"natural": Run([1.0, 0.5], [0.5, 1.0], validated=True), "random": Run([2.0, 1.5], [0.1, 0.4])}
    ax = draw(runs)
    assert [line.get_label() for line in ax.lines] == ["natural train", "natural validation", "random train"]
    first, second, third = (line.get_color() for line in ax.lines)
    assert first == second != third
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["natural", "random"]
    grouped = draw({"a": runs["random"], "b": runs["random"]}, groups={"a": "one", "b": "one"})
    assert len({line.get_color() for line in grouped.lines}) == 1
    assert len({line.get_marker() for line in grouped.lines}) == 2
    assert draw(runs["random"]).get_ylabel() == "training error"


def test_property_a_loss_that_is_not_finite_is_a_cross_and_a_gap() -> None:
    ax = draw(Run([1.0, math.inf, 0.5], [0.5, 0.1, 0.6]), quantity="loss")
    assert np.isnan(ax.lines[0].get_ydata()[1])
    assert np.asarray(ax.collections[0].get_offsets())[:, 0].tolist() == [2]


def test_a_training_run_draws_itself(tmp_path) -> None:
    data = cases.data_for((1, 8, 8), samples=30)
    run = fp.train(cases.mlp(), data, validation=data, epochs=3, out=tmp_path / "run")
    rows = run.to_frame()
    solid, dashed = run.plot(quantity="loss").lines
    assert list(solid.get_ydata()) == rows["train_loss"].tolist()
    assert list(dashed.get_ydata()) == rows["validation_loss"].tolist()
    assert len(fp.TrainingRun.load(tmp_path / "run", cases.mlp()).plot().lines) == 2


def test_what_is_no_history_is_refused() -> None:
    with pytest.raises(ValueError, match="runs must hold at least one run, got none"):
        history.draw({})
    with pytest.raises(ValueError, match="history must have at least one epoch, got none in 'a'"):
        draw({"a": Run([], [])})
    with pytest.raises(ValueError, match=r"quantity must be one of.*, got 'accuracy'"):
        draw(Run([1.0], [1.0]), quantity="accuracy")
    mixed = {"a": Run([1.0], [1.0]), "b": fp.functional_margins(cases.mlp(), cases.data_for((1, 8, 8), samples=9))}
    with pytest.raises(TypeError, match=r"runs must be of fp\.train, got 'b', a Margins"):
        inspect.unwrap(history.draw)(mixed)
