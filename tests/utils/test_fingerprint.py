"""Penalties of a caller's own in a run's record: a changed one is told from the one that the run began with."""

import enum
import functools
import hashlib
import json
import linecache
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import flatprobe as fp
from flatprobe.models import mlp
from flatprobe.utils.fingerprint import fingerprint
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


class Private(nn.Module):
    def __init__(self, factor):
        super().__init__()
        self._factor = factor


class Refusing(nn.Module):
    def state_dict(self, *_args, **_kwargs):
        raise RuntimeError


class Size(enum.Enum):
    SMALL = 0.1
    LARGE = 0.2


MAKERS = {
    "module's attribute": Named,
    "module's private attribute": Private,
    "wrapper": lambda factor: written(
        "import functools\ndef inner(passed):\n    return passed.loss\n"
        f"@functools.wraps(inner)\ndef own(passed):\n    return {factor} * inner(passed)\n"
    ),
    "a comment at the margin": lambda factor: written(
        f"def out():\n    def own(passed):\n# why\n        return {factor} * passed.loss\n    return own\nown = out()\n"
    ),
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
def test_what_it_carries_and_its_source_are_told_apart(name: str) -> None:
    """Property: equal where it is made alike, another where a number in it is; JSON keeps it."""
    one, same, other = (fingerprint(MAKERS[name](factor)) for factor in (0.1, 0.1, 0.2))
    assert one == same == json.loads(json.dumps(one))
    assert one != other
    assert one["name"].rpartition(".")[0]


def test_closed_forms() -> None:
    assert fingerprint(Fields(0.5)) == fingerprint(Fields(0.5)) | {
        "name": "tests.utils.test_fingerprint.Fields",
        "carries": {"factor": 0.5},
    }
    assert fingerprint(given)["carries"] == {"factor": 1.0}
    assert fingerprint(scaled(float("nan")))["carries"] == {"factor": "nan"}
    assert fingerprint(scaled(object()))["carries"] == {"factor": "object"}
    assert set(fingerprint(len)) == {"name"}  # builtins have no source
    source = "def given(passed, factor=1.0):\n    return factor * passed.logits.square().mean()"
    assert fingerprint(given)["source"] == hashlib.sha256(source.encode()).hexdigest()[:16]


def test_property_a_log_is_no_setting() -> None:
    """A run that is taken up again, with a part that has noted something by then, is the same run."""
    log, attributes, logging = [], Attributes(1.0), Attributes(1.0)
    logging.log, attributes.log = [2.0], []
    before = fingerprint(scaled(log))
    log.append(1.0)
    assert fingerprint(scaled(log)) == before
    assert fingerprint(logging) == fingerprint(attributes)
    assert fingerprint(scaled(attributes))["carries"] == {"factor": "Attributes"}


def test_property_comments_and_layout_are_no_change() -> None:
    text = SOURCE.format(1)
    assert fingerprint(written(text)) == fingerprint(written(text.replace("    return", "    # why\n\n    return")))


def test_closed_form_a_function_that_closes_over_itself() -> None:
    def own(passed):
        return own(passed)

    assert fingerprint(own)["carries"] == {"own": "function"}


def test_property_a_lambda_is_its_code_wherever_it_is_written() -> None:
    one = [lambda passed: passed.loss][0]  # all lambdas of a line count, so the other one has its own
    other = [lambda passed: 2 * passed.loss][0]
    again = [
        0,
        lambda passed: passed.loss,
    ][1]
    assert fingerprint(one)["source"] == fingerprint(again)["source"] != fingerprint(other)["source"]


def test_closed_form_what_cannot_be_looked_into_is_there_by_its_type() -> None:
    class Itemised:
        item = 3

    looped = Fields([])
    looped.factor.append(looped.factor)
    assert fingerprint(looped)["carries"] == {"factor": ["list"]}
    for odd, told in (
        (torch.ones(2).to_sparse(), "Tensor"),
        (torch.ones(2, device="meta"), "Tensor"),
        (Itemised(), "Itemised"),
        (np.array([object()]), "ndarray"),
    ):
        assert fingerprint(scaled(odd))["carries"] == {"factor": told}
    assert fingerprint(Refusing())["name"].endswith("Refusing")
    assert fingerprint(functools.partial(str.upper, "x"))["name"].endswith("str.upper")


def test_property_parts_that_share_parts_are_not_described_again_and_again() -> None:
    shared = Fields(1.0)
    for _ in range(14):
        shared = Fields((shared, shared))
    assert len(json.dumps(fingerprint(shared))) < 10_000


def test_property_a_transform_that_counts_is_described_alike_the_next_time(tmp_path: Path) -> None:
    class Counting:
        calls = 0

        def __call__(self, passed):
            self.calls += 1
            return passed.inputs.detach(), passed.labels

    counting = Counting()
    for _ in range(2):
        fp.train(mlp((4,), classes=3), clusters(), epochs=1, out=tmp_path / "run", transforms=[counting])
    assert counting.calls == 0


def test_a_run_with_a_changed_penalty_is_refused(tmp_path: Path) -> None:
    def run(penalty):
        return fp.train(mlp((4,), classes=3), clusters(), epochs=1, out=tmp_path / "run", penalties=[(0.1, penalty)])

    first = run(scaled(1.0))
    assert run(scaled(1.0)).settings == first.settings
    with pytest.raises(ValueError, match=r"settings\.penalties\.0\.1\.carries\.factor was 1\.0, now 2\.0;.*weights$"):
        run(scaled(2.0))


def test_a_run_with_changed_code_is_refused_and_the_message_explains_the_digest(tmp_path: Path) -> None:
    def run(factor):
        penalty = written(SOURCE.format(factor))
        return fp.train(mlp((4,), classes=3), clusters(), epochs=1, out=tmp_path / "run", penalties=[(0.1, penalty)])

    run(1)
    with pytest.raises(ValueError, match=r"0\.1\.source was .*, now .*A source is the digest of user-defined code"):
        run(2)
