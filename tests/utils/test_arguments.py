"""Arguments of the kinds that other tools take: they work, or the error says what to give, and that works."""

import re
from collections.abc import Callable
from functools import partial
from inspect import isfunction, signature
from typing import Literal, get_args, get_origin

import pytest
import torch
from torch import nn

import flatprobe as fp
from flatprobe.network.weights import as_mapping
from flatprobe.probes.interpolation import Interpolation
from flatprobe.probes.robustness import Robustness
from flatprobe.probes.weight_norms import WeightNorms
from flatprobe.risk.empirical import RiskFunction
from tests.helpers import cases

DATA = cases.data_for((1, 4, 4), samples=40, classes=4)
RISK_PROBES = {
    "flatness_radius": {"directions": 1},
    "random_slice": {"dimensions": 1, "steps": 3},
    "hessian_eigenvalues": {},
    "hessian_trace": {"draws": 1},
    "worst_case_sharpness": {"steps": 1},
    "gradient_noise": {"draws": 2, "batch_size": 4},
}


def model() -> nn.Module:
    return cases.smooth()


@pytest.mark.parametrize("name", RISK_PROBES)
def test_probes_of_a_risk_say_so_and_the_cure_works(name: str) -> None:
    probe = getattr(fp, name)
    message = (
        rf"the first argument of {name} is the network Sequential; expected the risk .*: "
        rf"risk = fp\.EmpiricalRisk\(model, data\), then fp\.{name}\(risk\)"
    )
    for arguments in ((model(),), (model(), DATA)):
        with pytest.raises(TypeError, match=message):
            probe(*arguments)
    with pytest.raises(TypeError, match=rf"first argument of {name} is a LabelledData; expected the risk"):
        probe(DATA)
    risk = fp.EmpiricalRisk(model(), DATA)
    assert probe(risk, **RISK_PROBES[name]).settings["probe"] == name
    assert probe(risk=risk, **RISK_PROBES[name]).settings["probe"] == name


def test_interpolate_says_what_comes_first() -> None:
    models = [model(), cases.smooth(seed=1)]
    with pytest.raises(TypeError, match=r"is a list; .*fp\.interpolate\(risk, \[first, second\], fp\.segment\(\)\)"):
        fp.interpolate(models, DATA, fp.segment())
    assert len(fp.interpolate(fp.EmpiricalRisk(models[0], DATA), models, fp.segment()).loss) == 21


class Own:
    """A risk of one's own: I(w) = ||w||^2, in the form that a call returns."""

    def __init__(self, returned: str, center: object = None) -> None:
        self.returned = returned
        self.center = {"w": torch.ones(3, dtype=torch.float64)} if center is None else center

    def __call__(self, weights: dict[str, torch.Tensor]) -> object:
        loss = weights["w"].square().sum()
        return {"tensor": loss, "float": float(loss), "risk": fp.Risk(loss=float(loss), error=float("nan"))}[
            self.returned
        ]

    def gradient(self, weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return {"w": 2 * weights["w"]}


@pytest.mark.parametrize("returned", ["tensor", "float"])
def test_a_risk_of_ones_own_returns_a_risk_and_the_cure_works(returned: str) -> None:
    message = r"the risk Own returned a \w+; expected a fp\.Risk: return fp\.Risk\(float\(loss\)\) where there is no"
    for probe in (fp.flatness_radius, fp.worst_case_sharpness):
        with pytest.raises(TypeError, match=message):
            probe(Own(returned))
    with pytest.raises(TypeError, match=message):
        fp.random_slice(Own(returned), law="isotropic")
    with pytest.raises(TypeError, match=message):
        fp.interpolate(Own(returned), [{"w": torch.zeros(3).double()}] * 2, fp.segment())
    cured = fp.flatness_radius(Own("risk"), directions=1, epsilon=1.0)
    assert isinstance(Own("risk"), RiskFunction)
    assert bool(cured.reached.all())


def test_a_risk_of_ones_own_has_weights_by_name_and_data_where_those_are_drawn() -> None:
    with pytest.raises(TypeError, match="the center of the risk Own is a Tensor; expected its weights, a dictionary"):
        fp.flatness_radius(Own("risk", torch.ones(3)))
    with pytest.raises(TypeError, match=r"the risk must be an fp\.EmpiricalRisk, .* got a Own"):
        fp.gradient_noise(Own("risk"))


def test_points_of_a_line_and_a_triangle_by_place() -> None:
    assert torch.equal(fp.segment(11), fp.segment(steps=11))
    assert torch.equal(fp.simplex(3, 4), fp.simplex(endpoints=3, steps=4))
    for wrong in (2.5, "11", None, True):
        with pytest.raises(ValueError, match=r"steps must be a .*got"):
            fp.segment(wrong)
        with pytest.raises(ValueError, match=r"endpoints must be a .*got"):
            fp.simplex(wrong)


def test_comparisons_take_one_probe_and_want_names() -> None:
    found = fp.compare({"a": model()}, DATA, probes="functional_margins")
    assert list(found.results) == ["functional_margins"]
    with pytest.raises(TypeError, match=r"models must be .*, got a list\. Give \{'model_0': .*, 'model_1': \.\.\.\}"):
        fp.compare([model(), model()], DATA)
    with pytest.raises(TypeError, match=r"models must be .*, got a Sequential\. Give \{'model_0': \.\.\.\}"):
        fp.compare(model(), DATA)
    with pytest.raises(TypeError, match=r"groups must be a dictionary from the networks' names .*, got \['x'\]"):
        fp.compare({"a": model()}, DATA, groups=["x"])
    with pytest.raises(TypeError, match=r"the data are a Tensor; expected LabelledData"):
        fp.compare({"a": model()}, DATA.inputs)


def test_bounds_are_a_module_of_functions() -> None:
    with pytest.raises(TypeError, match=r"fp\.bounds is a module; call one of its functions: .*fp\.bounds\.hoeff"):
        fp.bounds(model(), DATA)
    assert fp.bounds.hoeffding(samples=100, empirical=0.1).value > 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"optimizer": torch.optim.SGD},
            r"the optimizer must be one of 'sgd'.*, got the class SGD\. Give optimizer='sgd'",
        ),
        ({"optimizer": torch.optim.AdamW}, r"the optimizer must be one of 'sgd', .*value\}, got the class AdamW$"),
        ({"optimizer": None}, r"the optimizer must be one of 'sgd'.*, got None"),
        (
            {"transforms": [lambda x, y: (x, y)]},
            r"the transform '<lambda>' takes \(x, y\) and would be called with 1 argument; expected a function .*"
            + re.escape("giving (inputs, labels): lambda passed: (passed.inputs + 0.1, passed.labels)"),
        ),
        (
            {"constraints": [nn.init.zeros_]},
            r"the constraint 'zeros_' takes \(tensor.* and would be called with 2 arguments; .* of the network",
        ),
        (
            {"penalties": [(0.1, lambda z, y: (z * y).mean())]},
            r"the penalty '<lambda>' takes \(z, y\) and would be called with 1 argument; .*\.inputs, \.labels",
        ),
    ],
)
def test_parts_of_a_training_say_how_they_are_called(arguments: dict, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        fp.train(model(), DATA, epochs=1, **arguments)


def test_the_parts_in_the_messages_work() -> None:
    def clamped(network: nn.Module, _layers: object) -> None:
        for parameter in network.parameters():
            parameter.clamp_(-0.1, 0.1)

    run = fp.train(
        model(), DATA, epochs=1, optimizer="sgd", constraints=[clamped],
        transforms=[lambda passed: (passed.inputs + 0.1, passed.labels)],
        penalties=[(0.1, lambda passed: passed.logits.square().mean())],
    )  # fmt: skip
    assert max(float(value.abs().max().detach()) for value in run.model.parameters()) <= 0.1


@pytest.mark.parametrize("name", RISK_PROBES)
def test_options_of_other_kinds_are_named(name: str) -> None:
    probe, risk = getattr(fp, name), fp.EmpiricalRisk(model(), DATA)
    for seed in (torch.Generator(), 0.5, "a", True):
        with pytest.raises(ValueError, match=r"seed must be a whole number.*, got .*"):
            probe(risk, seed=seed)
    with pytest.raises(ValueError, match=r"seed is None; expected a value: leave it out for the default, 0"):
        probe(risk, seed=None)
    layer = risk.network.module[1]
    for parameters in (layer, layer.weight, [layer.weight], layer.parameters(), 3):
        with pytest.raises(TypeError, match=r"the selection of parameters is or holds a \w+; expected names or patter"):
            probe(risk, parameters=parameters, **RISK_PROBES[name])
    assert probe(risk, parameters="1.*", **RISK_PROBES[name]).settings["arguments"]["parameters"] == "1.*"


def test_none_and_words_are_named_where_a_value_is_wanted() -> None:
    risk = fp.EmpiricalRisk(model(), DATA)
    for probe, option in (
        (fp.flatness_radius, "rtol"),
        (fp.random_slice, "steps"),
        (fp.hessian_eigenvalues, "tolerance"),
        (fp.hessian_trace, "draws"),
        (fp.gradient_noise, "batch_size"),
        (fp.worst_case_sharpness, "restarts"),
    ):
        with pytest.raises(ValueError, match=rf"{option} is None; expected a value: leave it out for the default"):
            probe(risk, **{option: None})
    with pytest.raises(ValueError, match=r"replacement must be one of True, False.*, got 'no'"):
        fp.gradient_noise(risk, replacement="no")
    with pytest.raises(ValueError, match=r"per_layer must be one of True, False.*, got 'yes'"):
        fp.hessian_eigenvalues(risk, per_layer="yes")


def test_weights_are_named() -> None:
    network = model()
    with pytest.raises(TypeError, match=r"the weights are a Sequential; .*: dict\(model\.named_parameters\(\)\)"):
        as_mapping(network)
    assert fp.EmpiricalRisk(network, DATA)(dict(network.named_parameters())) == fp.EmpiricalRisk(network, DATA)()


def test_comparisons_take_probes_that_are_functions() -> None:
    for probes in (fp.functional_margins, [fp.functional_margins]):
        assert [*fp.compare({"a": model()}, DATA, probes=probes).results] == ["functional_margins"]


WORDS: dict[str, partial[object]] = {
    **{name: partial(getattr(fp, name), fp.EmpiricalRisk(model(), DATA)) for name in RISK_PROBES},
    "interpolate": partial(fp.interpolate, fp.EmpiricalRisk(model(), DATA), [model(), model()], fp.segment(steps=2)),
    "adversarial_accuracy": partial(fp.adversarial_accuracy, model(), DATA, budgets=0.0),
    "adversarial_points": partial(fp.adversarial_points, model(), DATA),
    "geometric_margins": partial(fp.geometric_margins, model(), DATA),
    "jacobian_norms": partial(fp.jacobian_norms, model(), DATA),
    "jacobian_maximum": partial(fp.jacobian_maximum, model(), DATA),
    "scores": partial(fp.scores, model(), DATA),
    "robustness": partial(fp.bounds.robustness, samples=10, empirical=0.0, partitions=2),
    "band": partial(Robustness.band, fp.gaussian_robustness(model(), DATA, gammas=[0.0], draws=1)),
    "flat_share": partial(
        Interpolation.flat_share,
        fp.interpolate(fp.EmpiricalRisk(model(), DATA), [model(), model()], fp.segment(steps=2)),
        0.9,
    ),
    "of": partial(WeightNorms.of, fp.weight_norms(model(), DATA.input_shape, path=False)),
}


def literals(function: Callable[..., object]) -> dict[str, list[object]]:
    """Argument -> the words of its annotation."""

    def words(hint: object) -> list[object]:
        inner = get_args(hint)
        return list(inner) if get_origin(hint) is Literal else [word for part in inner for word in words(part)]

    found = {name: words(value.annotation) for name, value in signature(function).parameters.items()}
    return {name: list(dict.fromkeys(own)) for name, own in found.items() if own}


@pytest.mark.parametrize(
    ("name", "argument"), [(name, argument) for name, call in WORDS.items() for argument in literals(call.func)]
)
@pytest.mark.parametrize("wrong", ["nonsense", 3.5])
def test_an_argument_with_a_closed_set_of_words_names_those_of_its_annotation(
    name: str, argument: str, wrong: object
) -> None:
    with pytest.raises(ValueError, match=rf"^{argument} must be one of .*, got {wrong!r}$") as refusal:
        WORDS[name](**{argument: wrong})
    listed = str(refusal.value).partition("one of ")[2].split(", ")[:-1]
    assert set(listed) - {"None"} == set(map(repr, literals(WORDS[name].func)[argument]))


def test_every_public_function_with_words_is_in_the_table() -> None:
    functions = {name: getattr(fp, name) for name in fp.__all__ if isfunction(getattr(fp, name))}
    assert {name for name, function in functions.items() if literals(function)} <= {*WORDS, "train", "tune"}


def test_numbers_are_checked_by_flatprobe_where_annotations_are_checked_too() -> None:
    with pytest.raises(ValueError, match=r"epsilon must be a positive finite number.*, got 'small'"):
        fp.flatness_radius(fp.EmpiricalRisk(model(), DATA), epsilon="small")
    with pytest.raises(ValueError, match=r"draws must be a whole number, at least 1.*, got 'many'"):
        fp.hessian_trace(fp.EmpiricalRisk(model(), DATA), draws="many")
    with pytest.raises(ValueError, match="steps must be an odd number of at least 3, got 'odd'"):
        fp.random_slice(fp.EmpiricalRisk(model(), DATA), steps="odd")
    with pytest.raises(ValueError, match=r"lower must be one of 'spectral'.*, got 3"):
        fp.geometric_margins(model(), DATA, lower=3)
