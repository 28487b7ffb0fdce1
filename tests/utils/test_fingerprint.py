"""Penalties of a caller's own in a run's record: a changed one is told from the one that the run began with."""

import enum
import functools
import json
import linecache
import subprocess
import sys
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
from torch import nn

import flatprobe as fp
from flatprobe.models import mlp
from flatprobe.utils.fingerprint import of_caller
from tests.helpers.small_data import clusters

SOURCE = "def own(passed):\n    return {} * passed.logits.square().mean()\n"


def written(text, name="own"):
    """What is defined by a file of this text."""
    file = f"<{hash(text)}>"
    linecache.cache[file] = (len(text), None, text.splitlines(keepends=True), file)
    made = {"__name__": "a_module"}
    exec(compile(text, file, "exec"), made)
    return made[name]


def scaled(factor):
    def own(passed):
        return factor * passed.logits.square().mean()

    return own


def given(passed, factor=1.0):
    return factor * passed.logits.square().mean()


@dataclass
class Fields:
    factor: float
    memory: dict = field(init=False, default_factory=dict)

    def __call__(self, passed):
        return self.factor * passed.logits.square().mean()


class Attributes:
    def __init__(self, factor):
        self.factor = factor

    def __call__(self, passed):
        return self.factor * passed.logits.square().mean()

    def method(self, passed):
        return self(passed)


class Module(nn.Module):
    def __init__(self, factor):
        super().__init__()
        self.register_buffer("factor", torch.tensor(factor))

    def forward(self, passed):
        return self.factor * passed.logits.square().mean()


class Named(nn.Module):
    def __init__(self, factor):
        super().__init__()
        self.factor = factor


class Slots:
    __slots__ = ("factor",)

    def __init__(self, factor):
        self.factor = factor

    def __call__(self, passed):
        return self.factor * passed.loss

    def by_default(self, passed, factor=None):
        return (factor or self.factor) * passed.loss


class Mangled:
    __slots__ = ("__factor",)

    def __init__(self, factor):
        self.__factor = factor

    def __call__(self, passed):
        return self.__factor * passed.loss


class Private(nn.Module):
    def __init__(self, factor):
        super().__init__()
        self._factor = factor


class Answering:
    """Has every attribute."""

    def __getattr__(self, name):
        return self

    def __call__(self, *_):
        return self


class Refusing(nn.Module):
    def state_dict(self, *_args, **_kwargs):
        raise RuntimeError


def wrapping(factor):
    text = (
        "import functools\n"
        "def inner(passed):\n    return passed.loss\n"
        f"@functools.wraps(inner)\ndef own(passed):\n    return {factor} * inner(passed)\n"
    )
    return written(text)


class Size(enum.Enum):
    SMALL = 0.1
    LARGE = 0.2


MAKERS = {
    "module's attribute": Named,
    "module's private attribute": Private,
    "slots": Slots,
    "mangled slots": Mangled,
    "wrapper": wrapping,
    "a comment at the margin": lambda factor: written(
        f"def out():\n    def own(passed):\n# why\n        return {factor} * passed.loss\n    return own\nown = out()\n"
    ),
    "method with a default of the same name": lambda factor: Slots(factor).by_default,
    "list in a partial": lambda factor: functools.partial(given, factor=[factor]),
    "enumeration in a closure": lambda factor: scaled(Size(factor)),
    "lambda": lambda factor: written(f"own = [lambda passed:\n{factor} * passed.loss][0]\n"),
    "closure": scaled,
    "tensor in a closure": lambda factor: scaled(torch.tensor(factor)),
    "tuple in a closure": lambda factor: scaled((np.float64(1), (factor,))),
    "fields in a closure": lambda factor: scaled(Fields(factor)),
    "lists in fields": lambda factor: Fields([1.0, {"deep": factor}]),
    "array in a closure": lambda factor: scaled(np.array([1.0, factor])),
    "function in a closure": lambda factor: scaled(scaled(factor)),
    "partial": lambda factor: functools.partial(given, factor=factor),
    "partial by place": lambda factor: functools.partial(given, None, factor),
    "partial of a closure": lambda factor: functools.partial(scaled(factor)),
    "fields": Fields,
    "attributes": Attributes,
    "method": lambda factor: Attributes(factor).method,
    "module": Module,
    "source": lambda factor: written(SOURCE.format(factor)),
    "default": lambda factor: written(f"def own(passed, factor={factor}):\n    return 1\n"),
}


@pytest.mark.parametrize("name", MAKERS)
def test_what_it_carries_and_its_source_are_told_apart(name):
    """Property: equal where it is made alike, another where a number in it is; JSON keeps it."""
    one, same, other = (of_caller(MAKERS[name](factor)) for factor in (0.1, 0.1, 0.2))
    assert one == same == json.loads(json.dumps(one))
    assert one != other
    assert one["name"].rpartition(".")[0]


def test_closed_forms():
    assert of_caller(Fields(0.5)) == of_caller(Fields(0.5)) | {
        "name": "tests.utils.test_fingerprint.Fields",
        "carries": {"factor": 0.5},
    }
    assert of_caller(given)["carries"] == {"factor": 1.0}
    assert of_caller(scaled(float("nan")))["carries"] == {"factor": "nan"}
    assert of_caller(scaled(object()))["carries"] == {"factor": "object"}
    assert set(of_caller(len)) == {"name"}  # builtins have no source


def test_a_log_is_no_setting():
    """A run that is taken up again, with a part that has noted something by then, is the same run."""
    log, attributes, logging = [], Attributes(1.0), Attributes(1.0)
    logging.log, attributes.log = [2.0], []
    before = of_caller(scaled(log))
    log.append(1.0)
    assert of_caller(scaled(log)) == before
    assert of_caller(logging) == of_caller(attributes)
    assert of_caller(scaled(attributes))["carries"] == {"factor": "Attributes"}


def test_comments_and_layout_are_no_change():
    text = SOURCE.format(1)
    assert of_caller(written(text)) == of_caller(written(text.replace("    return", "    # why\n\n    return")))


def test_a_function_that_closes_over_itself():
    def own(passed):
        return own(passed)

    assert of_caller(own)["carries"] == {"own": "function"}


def test_a_lambda_is_what_it_does_wherever_it_stands():
    one, other = (lambda passed: passed.loss), (lambda passed: 2 * passed.loss)
    again = [
        0,
        lambda passed: passed.loss,
    ][1]
    assert of_caller(one)["source"] == of_caller(again)["source"] != of_caller(other)["source"]


def test_a_lambda_is_the_same_in_another_process():
    """Sets are printed in an order of the process' own."""
    code = (
        "from flatprobe.utils.fingerprint import of_caller\n"
        "print(of_caller(lambda passed: passed.named_loss in {'a', 'b', 'c', 'd', 'e'})['source'])"
    )
    found = {subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout for _ in range(3)}
    assert len(found) == 1


def test_what_cannot_be_looked_into_is_there_by_its_type():
    class Itemised:
        item = 3

    looped = Fields([])
    looped.factor.append(looped.factor)
    assert of_caller(looped)["carries"] == {"factor": ["list"]}
    for odd, told in (
        (torch.ones(2).to_sparse(), "Tensor"),
        (torch.ones(2, device="meta"), "Tensor"),
        (Itemised(), "Itemised"),
        (np.array([object()]), "ndarray"),
    ):
        assert of_caller(scaled(odd))["carries"] == {"factor": told}
    assert of_caller(Refusing())["name"].endswith("Refusing")
    assert json.dumps(of_caller(Answering()))
    assert of_caller(functools.partial(str.upper, "x"))["name"].endswith("str.upper")


def test_parts_that_share_parts_are_not_described_again_and_again():
    shared = Fields(1.0)
    for _ in range(14):
        shared = Fields((shared, shared))
    assert len(json.dumps(of_caller(shared))) < 10_000


def test_a_transform_that_counts_is_described_alike_the_next_time(tmp_path):
    class Counting:
        calls = 0

        def __call__(self, passed):
            self.calls += 1
            return passed.inputs.detach(), passed.labels

    counting = Counting()
    for _ in range(2):
        fp.train(mlp((4,), classes=3), clusters(), epochs=1, out=tmp_path / "run", transforms=[counting])
    assert counting.calls == 0


def test_a_run_with_a_changed_penalty_is_refused(tmp_path):
    def run(factor):
        return fp.train(
            mlp((4,), classes=3), clusters(), epochs=1, out=tmp_path / "run", penalties=[(0.1, scaled(factor))]
        )

    first = run(1.0)
    assert run(1.0).settings == first.settings
    with pytest.raises(ValueError, match=r"settings\.penalties\.0\.1\.carries\.factor was 1\.0, now 2\.0"):
        run(2.0)
