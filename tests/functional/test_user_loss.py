"""A caller's own loss: torch's modules and functions, any function of each sample alone, and what is refused."""

import json
from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import flatprobe as fp
from flatprobe.functional.losses import per_sample_loss, softmax_temperature
from tests.helpers import cases
from tests.helpers.properties import assert_batch_size_invariant
from tests.helpers.small_data import clusters

DATA = cases.data_for((1, 8, 8), samples=60)
WEIGHT = torch.linspace(0.5, 2.0, 10)


class Focal(nn.Module):
    """(1 - p_y)^2 l, in the form that such losses have in published packages."""

    def __init__(self, reduction: str = "mean") -> None:
        super().__init__()
        self.reduction = reduction

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        loss = F.cross_entropy(logits, labels, reduction="none")
        values = (1 - (-loss).exp()).square() * loss
        return values if self.reduction == "none" else values.mean()


def doubled(logits: Tensor, labels: Tensor) -> Tensor:
    return 2 * F.cross_entropy(logits, labels, reduction="none")


def smoothed(logits: Tensor, labels: Tensor) -> Tensor:
    """Of one sample: the class-weighted cross-entropy with label smoothing, written out."""
    log_p, weight = logits.log_softmax(0), WEIGHT.double()
    return -0.9 * weight[labels] * log_p[labels] - 0.1 / 10 * (weight * log_p).sum()


# A loss as users give it, and the same of one sample, written out.
OWN = {
    "module": (nn.CrossEntropyLoss(label_smoothing=0.1, weight=WEIGHT), smoothed),
    "module that sums": (nn.CrossEntropyLoss(label_smoothing=0.1, weight=WEIGHT, reduction="sum"), smoothed),
    "smoothing alone": (
        nn.CrossEntropyLoss(label_smoothing=0.1),
        lambda z, y: -0.9 * z.log_softmax(0)[y] - 0.1 * z.log_softmax(0).mean(),
    ),
    "partial": (partial(F.cross_entropy, label_smoothing=0.1, weight=WEIGHT.double()), smoothed),
    "ignored class": (
        nn.CrossEntropyLoss(ignore_index=3),
        lambda z, y: -z.log_softmax(0)[y] * (y != 3),
    ),
    "negative log-likelihood": (F.nll_loss, lambda z, y: -z[y]),
    "its module": (nn.NLLLoss(), lambda z, y: -z[y]),
    "multi-class margins": (
        nn.MultiMarginLoss(),
        lambda z, y: sum((1 - z[y] + z[j]).clamp_min(0) for j in range(10) if j != y) / 10,
    ),
    "a module of one's own": (Focal(), lambda z, y: (1 - z.softmax(0)[y]) ** 2 * -z.log_softmax(0)[y]),
    "a function": (doubled, lambda z, y: -2 * z.log_softmax(0)[y]),
}


@pytest.mark.parametrize("name", OWN)
def test_slow_reference_value_gradient_and_hessian_product(name: str) -> None:
    loss, single = OWN[name]
    model = cases.mlp()
    risk = fp.EmpiricalRisk(model, DATA, loss=loss, batch_size=7)
    logits = model(DATA.inputs.double())
    value = torch.stack([single(z, y) for z, y in zip(logits, DATA.labels, strict=True)]).mean()
    assert risk().loss == pytest.approx(float(value.detach()), rel=1e-9)
    parameters = dict(model.named_parameters())
    expected = torch.autograd.grad(value, list(parameters.values()), create_graph=True)
    for name, found, reference in zip(parameters, risk.gradient().values(), expected, strict=True):
        torch.testing.assert_close(found, reference.detach(), rtol=1e-9, atol=1e-12, msg=name)
    if isinstance(loss, nn.MultiMarginLoss):
        return  # torch has no second derivative of it
    u = {name: torch.randn(w.shape, dtype=w.dtype) for name, w in parameters.items()}
    along = sum((g * u[name]).sum() for name, g in zip(parameters, expected, strict=True))
    curved = torch.autograd.grad(along, list(parameters.values()), materialize_grads=True)
    for found, reference in zip(risk.hvp(None, u).values(), curved, strict=True):
        torch.testing.assert_close(found, reference, rtol=1e-9, atol=1e-12)


def test_property_class_weights_do_not_depend_on_the_batch_size() -> None:
    loss = nn.CrossEntropyLoss(weight=WEIGHT)
    assert_batch_size_invariant(
        lambda data, size: torch.tensor([fp.EmpiricalRisk(cases.mlp(), data, loss=loss, batch_size=size)().loss]), DATA
    )


def test_closed_form_a_class_weighted_risk_is_torchs_times_the_labels_mean_weight() -> None:
    model = cases.mlp()
    own = nn.CrossEntropyLoss(weight=WEIGHT.double())
    torchs = float(own(model(DATA.inputs.double()), DATA.labels).detach())
    found = fp.EmpiricalRisk(model, DATA, loss=own)().loss
    assert found == pytest.approx(torchs * float(WEIGHT[DATA.labels].mean()), rel=1e-6)


@pytest.mark.parametrize("loss", [F.cross_entropy, nn.CrossEntropyLoss(), nn.CrossEntropyLoss(reduction="sum")])
def test_torchs_plain_cross_entropy_is_ours(loss: object) -> None:
    risk = fp.EmpiricalRisk(cases.mlp(), DATA, loss=loss)
    assert risk.loss == "cross_entropy"
    assert risk() == fp.EmpiricalRisk(cases.mlp(), DATA)()
    assert softmax_temperature(loss) == 1.0
    assert per_sample_loss(loss).func is per_sample_loss("cross_entropy").func


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_property_the_callers_module_is_untouched_and_follows_the_networks_dtype(dtype: torch.dtype) -> None:
    loss = nn.CrossEntropyLoss(weight=WEIGHT.clone())
    risk = fp.EmpiricalRisk(cases.mlp().to(dtype), DATA, loss=loss)
    assert risk().loss == pytest.approx(fp.EmpiricalRisk(cases.mlp(), DATA, loss=loss)().loss, rel=2e-2)
    assert loss.weight.dtype == torch.float32
    assert (loss.reduction, loss.training) == ("mean", True)
    before = risk().loss
    loss.weight.zero_()  # the risk has a copy
    assert risk().loss == before


def test_closed_form_a_loss_twice_as_high_halves_epsilon() -> None:
    model = cases.mlp()
    twice = fp.flatness_radius(fp.EmpiricalRisk(model, DATA, loss=doubled), directions=2, epsilon=0.1)
    plain = fp.flatness_radius(fp.EmpiricalRisk(model, DATA), directions=2, epsilon=0.05)
    torch.testing.assert_close(twice.radii, plain.radii, rtol=1e-6, atol=0)


def test_a_record_tells_losses_apart_and_says_how_they_are_called(tmp_path) -> None:
    result = fp.random_slice(
        fp.EmpiricalRisk(cases.mlp(), DATA, loss=nn.CrossEntropyLoss(weight=WEIGHT)), dimensions=1, steps=3
    )
    fp.save(result, tmp_path / "own.parquet")
    told = fp.load(tmp_path / "own.parquet").settings["subject"]["loss"]
    assert told["name"] == "torch.nn.modules.loss.CrossEntropyLoss"
    assert told["carries"]["reduction"] == "none"
    others = [nn.CrossEntropyLoss(weight=2 * WEIGHT), nn.CrossEntropyLoss(label_smoothing=0.1, weight=WEIGHT), doubled]
    described = [fp.EmpiricalRisk(cases.mlp(), DATA, loss=loss).loss for loss in others]
    assert len({json.dumps(entry, sort_keys=True) for entry in [told, *described]}) == 4


def scalar(logits: Tensor, labels: Tensor) -> Tensor:
    return F.cross_entropy(logits, labels)


def centred(logits: Tensor, labels: Tensor) -> Tensor:
    values = F.cross_entropy(logits, labels, reduction="none")
    return values - values.mean()


def noisy(logits: Tensor, labels: Tensor) -> Tensor:
    return F.cross_entropy(logits + torch.randn_like(logits), labels, reduction="none")


REFUSED = {
    "scalar": (
        scalar,
        r"user_loss\.scalar returned a scalar for 16 samples; .*Leave out its mean over the samples \(reduction=",
    ),
    "transposed": (
        lambda z, y: (z - F.one_hot(y, 10)).square().T,
        r"returned a tensor of shape \(10, 16\).*; expected one floating value per sample, .*The first dimension must",
    ),
    "number": (lambda *_: 1.0, "returned a float for 16 samples"),
    "integers": (lambda _, y: y, r"returned a tensor of shape \(16,\), torch.int64,"),
    "mean": (centred, "differ by up to .* in two smaller batches; expected a function of each sample alone. .*a mean"),
    "divided": (lambda z, y: doubled(z, y) / len(y), "differ by up to .*. Look for a mean or a division"),
    "random": (noisy, "differ by up to .* or for random numbers"),
    "dtype": (
        partial(F.cross_entropy, weight=WEIGHT),
        r"cannot be evaluated on logits \(16, 10\) \(torch\.float64\) and labels \(16,\).*have this dtype",
    ),
    "targets of another kind": (nn.BCEWithLogitsLoss(), r"BCEWithLogitsLoss cannot be evaluated on logits \(16, 10\)"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_losses_that_are_not_one_value_per_sample_are_refused(name: str) -> None:
    loss, message = REFUSED[name]
    before = torch.get_rng_state()
    with pytest.raises(ValueError, match=message):
        fp.EmpiricalRisk(cases.mlp(), DATA, loss=loss)
    assert torch.equal(before, torch.get_rng_state())
    with pytest.raises(ValueError, match=message.split("16")[0]):
        fp.train(cases.mlp(), DATA, epochs=1, objective=loss)


def test_the_cure_of_a_scalar_works() -> None:
    cured = partial(F.cross_entropy, reduction="none")
    assert fp.EmpiricalRisk(cases.mlp(), DATA, loss=cured)().loss == fp.EmpiricalRisk(cases.mlp(), DATA)().loss


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        (nn.CrossEntropyLoss, r"the loss is the class CrossEntropyLoss; .*Pass an object of it, CrossEntropyLoss\(\)"),
        (None, "the loss is None; expected one of 'cross_entropy', .*or a function"),
        (3, "the loss is 3; expected one of 'cross_entropy'"),
    ],
)
def test_what_is_no_loss_is_refused(loss: object, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        fp.EmpiricalRisk(cases.mlp(), DATA, loss=loss)
    with pytest.raises(TypeError, match=message):
        fp.train(cases.mlp(), DATA, epochs=1, objective=loss)


def test_a_loss_without_a_derivative_serves_where_none_is_taken() -> None:
    def wrong(logits: Tensor, labels: Tensor) -> Tensor:
        return (logits.argmax(1) != labels).to(logits)

    risk = fp.EmpiricalRisk(cases.mlp(), DATA, loss=wrong)
    assert risk().loss == risk().error
    with pytest.raises(ValueError, match=r"wrong has no gradient in the logits, and this probe differentiates it"):
        fp.hessian_trace(risk)
    with pytest.raises(ValueError, match=r"wrong has no gradient in the logits"):
        fp.train(cases.mlp(), DATA, epochs=1, objective=wrong)


def crossed(logits: Tensor, labels: Tensor) -> Tensor:
    return F.cross_entropy(logits, labels, reduction="none")


def weights(run: fp.TrainingRun) -> Tensor:
    return torch.cat([value.detach().flatten() for value in run.model.parameters()])


@pytest.mark.parametrize(
    "parts", [{}, {"penalties": [(0.1, "double_backpropagation")]}, {"transforms": ["mixup"]}], ids=str
)
def test_closed_form_training_with_ones_own_cross_entropy_is_training_with_it(parts: dict) -> None:
    network = cases.mlp((6,), widths=(5,))
    data = clusters(40, shape=(6,))
    settings = {"epochs": 3, "batch_size": 8, "learning_rate": 0.1, **parts}
    own, plain = (fp.train(network, data, objective=objective, **settings) for objective in (crossed, "cross_entropy"))
    torch.testing.assert_close(weights(own), weights(plain), rtol=1e-9, atol=1e-12)
    assert own.history[-1]["train_loss"] == pytest.approx(plain.history[-1]["train_loss"], rel=1e-9)
    assert own.settings["settings"]["objective"]["name"] == "tests.functional.test_user_loss.crossed"
    torchs = fp.train(network, data, objective=nn.CrossEntropyLoss(), **settings)
    assert torchs.settings["settings"]["objective"] == "cross_entropy"
    assert torch.equal(weights(torchs), weights(plain))


def test_slow_reference_one_step_on_class_weights_and_smoothing() -> None:
    network, data = cases.mlp((6,), widths=(5,)), clusters(20, shape=(6,))
    loss = nn.CrossEntropyLoss(label_smoothing=0.1, weight=WEIGHT)
    run = fp.train(network, data, epochs=1, batch_size=20, learning_rate=0.1, momentum=0.0, objective=loss)
    kernel = nn.CrossEntropyLoss(label_smoothing=0.1, weight=loss.weight.double(), reduction="none")
    kernel(network(data.inputs.double()), data.labels).mean().backward()
    expected = torch.cat([(w - 0.1 * w.grad).flatten() for w in network.parameters()])
    torch.testing.assert_close(weights(run), expected.detach(), rtol=1e-9, atol=1e-12)


def test_a_run_goes_on_with_its_own_objective_only(tmp_path) -> None:
    network, data = cases.mlp((6,), widths=(5,)), clusters(40, shape=(6,))
    run = fp.train(network, data, epochs=1, objective=crossed, out=tmp_path / "run")
    again = fp.train(network, data, epochs=1, objective=crossed, out=tmp_path / "run")
    assert torch.equal(weights(run), weights(again))
    with pytest.raises(ValueError, match="objective"):
        fp.train(network, data, epochs=1, objective=doubled, out=tmp_path / "run")


def test_tuning_takes_it_up_to_the_test_set() -> None:
    data = clusters(40, shape=(6,))
    tuned = fp.tune(
        lambda seed: cases.mlp((6,), widths=(5,), seed=seed), data, setting="weight_decay", strengths=[0.0, 0.1],
        validation=0.25, test=data, epochs=2, objective=doubled,
    )  # fmt: skip
    assert tuned.test_loss == [fp.EmpiricalRisk(run.model, data, loss=doubled)().loss for run in tuned.runs]


def test_a_penalty_on_the_losss_hessian_refuses_it() -> None:
    with pytest.raises(ValueError, match=r"user-defined loss .*crossed in the logits is not known"):
        fp.train(cases.mlp(), DATA, epochs=1, objective=crossed, penalties=[(0.1, "hessian_scaled")])
