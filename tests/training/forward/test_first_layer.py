"""Networks that take their inputs in by one linear layer: which they are, and the inner products formed behind it."""

import copy
from functools import partial

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import weight_norm

import flatprobe as fp
from flatprobe.functional.jacobian_rows import gram, rows_of
from flatprobe.training.forward.first_layer import _Through, entrance, inner_products, squares
from flatprobe.training.penalties import HessianScaled, JacobianFrobenius

SAMPLES, CLASSES = 6, 3


class Written(nn.Module):
    """A forward pass over named layers."""

    def __init__(self, forward, **layers):
        super().__init__()
        self.run = forward
        for name, layer in layers.items():
            self.add_module(name, layer)

    def forward(self, inputs):
        return self.run(self, inputs)


def behind(first, *more):
    return nn.Sequential(first, nn.Tanh(), nn.Linear(4, CLASSES), *more)


def passed_over(network, shape, dtype=torch.float64):
    points = torch.rand((SAMPLES, *shape), generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return fp.ForwardPass(network.to(dtype), points.to(dtype), torch.zeros(SAMPLES, dtype=torch.int64))


def rows_alone(passed):
    """The penalty as it is formed of the rows of J."""
    return sum(passed.derivative(passed.logits[:, k]).square().sum() for k in range(CLASSES)) / SAMPLES


class Squeeze(torch.autograd.Function):
    """Named as one of torch's own, which only rearrange."""

    @staticmethod
    def forward(_ctx, inputs):
        return inputs / 255

    @staticmethod
    def backward(_ctx, above):
        return above / 255


ENTERED = {
    "flattened": (lambda: nn.Sequential(nn.Flatten(), *behind(nn.Linear(50, 4))), (2, 5, 5)),
    "as it is": (lambda: behind(nn.Linear(50, 4, bias=False)), (50,)),
    "permuted": (
        lambda: Written(lambda m, x: m.net(x.permute(0, 3, 1, 2).reshape(len(x), -1)), net=behind(nn.Linear(50, 4))),
        (5, 5, 2),
    ),
    "computed weight": (lambda: behind(weight_norm(nn.Linear(50, 4))), (50,)),
    "batch norm behind": (
        lambda: nn.Sequential(nn.Linear(50, 4), nn.BatchNorm1d(4), nn.Tanh(), nn.Linear(4, CLASSES)),
        (50,),
    ),
    "skip behind": (
        lambda: Written(
            lambda m, x: m.out((h := m.first(x).tanh()) + m.second(h)),
            first=nn.Linear(50, 4),
            second=nn.Linear(4, 4),
            out=nn.Linear(4, CLASSES),
        ),
        (50,),
    ),
    "a layer that the logits do not need": (
        lambda: Written(lambda m, x: (m.spare(x), m.net(x))[1], spare=nn.Linear(50, 4), net=behind(nn.Linear(50, 4))),
        (50,),
    ),
}

NOT_ENTERED = {
    "skip around": (lambda: Written(lambda m, x: m.net(x) + x[:, :3], net=behind(nn.Linear(50, 4))), (50,)),
    "two entrances": (
        lambda: Written(lambda m, x: m.a(x) + m.b(x), a=behind(nn.Linear(50, 4)), b=behind(nn.Linear(50, 4))),
        (50,),
    ),
    "applied twice": (
        lambda: Written(
            lambda m, x: m.out(m.first(x).tanh() * m.first(x.flip(1))),
            first=nn.Linear(50, 4),
            out=nn.Linear(4, CLASSES),
        ),
        (50,),
    ),
    "scaled before": (lambda: Written(lambda m, x: m.net(2 * x), net=behind(nn.Linear(50, 4))), (50,)),
    "a function named as torch's": (
        lambda: Written(lambda m, x: m.net(Squeeze.apply(x)), net=behind(nn.Linear(50, 4))),
        (50,),
    ),
    "dropout before": (lambda: nn.Sequential(nn.Dropout(0.2), *behind(nn.Linear(50, 4))), (50,)),
    "a part of the inputs": (lambda: Written(lambda m, x: m.net(x[:, :40]), net=behind(nn.Linear(40, 4))), (50,)),
    "weight made of the inputs": (
        lambda: Written(
            lambda m, x: m.out(F.linear(x, m.first.weight * x.mean()).tanh()),
            first=nn.Linear(50, 4),
            out=nn.Linear(4, CLASSES),
        ),
        (50,),
    ),
    "convolution": (
        lambda: nn.Sequential(nn.Conv2d(2, 2, 5), nn.Flatten(), nn.Tanh(), nn.Linear(2, CLASSES)),
        (2, 5, 5),
    ),
    "tokens": (lambda: Written(lambda m, x: m.net(x).sum(1), net=behind(nn.Linear(25, 4))), (2, 25)),
    "tokens as samples": (
        lambda: Written(
            lambda m, x: m.net(x.flatten(0, 1)).unflatten(0, (len(x), 2)).sum(1), net=behind(nn.Linear(25, 4))
        ),
        (2, 25),
    ),
    "more outputs than pays": (lambda: nn.Sequential(nn.Linear(50, 200), nn.Tanh(), nn.Linear(200, CLASSES)), (50,)),
}


@pytest.mark.parametrize("name", ENTERED)
def test_products_behind_the_entrance_are_those_of_the_rows(name):
    """Slow reference: the rows of J themselves; value and the gradient in every weight, to float64's rounding."""
    make, shape = ENTERED[name]
    torch.manual_seed(0)
    network = make()
    passed = passed_over(network, shape)
    assert entrance(passed, passed.logits) is not None
    weights = list(network.parameters())
    scales = torch.randn(SAMPLES, CLASSES, CLASSES, dtype=torch.float64)  # no symmetric ones
    found = inner_products(passed, passed.logits, partial(rows_of, passed.logits))
    slow = gram(rows_of(passed.logits, lambda u: passed.derivative(passed.logits, u)))
    torch.testing.assert_close(found, slow, rtol=1e-10, atol=1e-12)
    gradients = (
        torch.autograd.grad(
            (scales * value).sum(), weights, retain_graph=True, materialize_grads=True, allow_unused=True
        )
        for value in (found, slow)
    )
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("name", NOT_ENTERED)
def test_other_networks_have_none(name):
    make, shape = NOT_ENTERED[name]
    passed = passed_over(make(), shape)
    assert entrance(passed, passed.logits) is None
    found = JacobianFrobenius()(passed)
    torch.testing.assert_close(found, rows_alone(passed), rtol=1e-10, atol=1e-12)


def test_it_is_taken_where_it_saves_multiplications():
    """With d = 50 inputs and h outputs, 6 samples and r rows a sample: 2 h^2 (50 + 6 r) + 18 r^2 h against 900 r h."""
    for outputs, rows, pays in ((4, 3, True), (20, 1, False), (20, 3, False), (20, 10, True), (4, 50, False)):
        passed = passed_over(nn.Sequential(nn.Linear(50, outputs), nn.Tanh(), nn.Linear(outputs, 60)), (50,))
        assert (entrance(passed, passed.logits[:, :rows]) is not None) == pays


def test_squares_and_two_derivatives():
    """Property: the products' sum over the diagonal; derivatives of both orders by differences."""
    passed = passed_over(behind(nn.Linear(50, 4)), (50,))
    rows = partial(rows_of, passed.logits)
    products = inner_products(passed, passed.logits, rows)
    torch.testing.assert_close(squares(passed, passed.logits, rows), products.diagonal(dim1=1, dim2=2).sum(1))
    generator = torch.Generator().manual_seed(0)
    matrix, weight = (
        torch.randn(shape, generator=generator, dtype=torch.float64, requires_grad=True)
        for shape in ((2, 2, 3), (3, 4))
    )
    assert torch.autograd.gradcheck(_Through.apply, (matrix, weight))
    assert torch.autograd.gradgradcheck(_Through.apply, (matrix, weight))


@pytest.mark.parametrize("common", [1e2, 1e4])
def test_what_rounding_would_eat_is_formed_of_the_rows(common):
    """In float32, W with a large part that the head takes away again, against float64."""
    torch.manual_seed(0)
    network = behind(nn.Linear(50, 4))
    with torch.no_grad():
        network[0].weight += common * torch.ones(4, 1) @ torch.randn(1, 50)
        network[0].bias -= network[0].weight.sum(1) / 2
        network[2].weight -= network[2].weight.mean(1, keepdim=True)
    network[1] = nn.Identity()
    exact = JacobianFrobenius()(passed_over(copy.deepcopy(network), (50,))).item()
    single = passed_over(network, (50,), torch.float32)
    assert entrance(single, single.logits) is not None
    assert JacobianFrobenius()(single).item() == pytest.approx(exact, rel=1e-4 * common**0.5)


def test_ordinary_networks_are_not_formed_twice(monkeypatch):
    """Also with an outlier among the units, one that is never active."""
    data = fp.load_data("digits", split="train", limit=200)
    data = fp.LabelledData(data.inputs.flatten(1), data.labels)
    network = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))
    with torch.no_grad():
        network[0].weight[0], network[0].bias[0] = 50.0, -1e6
    run = fp.train(network, data, epochs=5, learning_rate=0.05)
    passed = fp.ForwardPass(run.model, data.inputs, data.labels)
    assert entrance(passed, passed.logits) is not None
    for way_round in ("gram", "squared_frobenius"):
        monkeypatch.setattr(f"flatprobe.training.forward.first_layer.{way_round}", None)
    for penalty in (JacobianFrobenius(), JacobianFrobenius(outputs="softmax"), HessianScaled()):
        assert penalty(passed).isfinite()


def test_half_precision_goes_to_the_inputs_at_once(monkeypatch):
    monkeypatch.setattr("flatprobe.training.forward.first_layer._Through", None)
    passed = passed_over(behind(nn.Linear(50, 4)), (50,), torch.bfloat16)
    assert entrance(passed, passed.logits) is not None
    assert JacobianFrobenius()(passed).item() == pytest.approx(rows_alone(passed).item(), rel=0.02)


@pytest.mark.parametrize(
    "penalty", [JacobianFrobenius(), JacobianFrobenius(outputs="softmax"), HessianScaled()], ids=str
)
@pytest.mark.parametrize("where", ["in the network", "around the penalty"])
def test_under_autocast(penalty, where):
    """bfloat16 keeps 8 bits: value and gradient to 5 % of those without it."""

    def lowered(module, inputs):
        with torch.autocast("cpu", torch.bfloat16):
            return module.net(inputs).float()

    torch.manual_seed(0)
    network = behind(nn.Linear(50, 4))
    if where == "in the network":
        network = Written(lowered, net=network)
    passed = passed_over(network, (50,), torch.float32)
    assert passed.logits.dtype == torch.float32
    with torch.autocast("cpu", torch.bfloat16, enabled=where == "around the penalty"):
        value = penalty(passed)
    plain = passed_over(copy.deepcopy(network).get_submodule("net" if where == "in the network" else ""), (50,))
    torch.testing.assert_close(value.double(), penalty(plain), rtol=0.05, atol=1e-4)
    found = torch.autograd.grad(value, next(iter(network.parameters())))[0]
    expected = torch.autograd.grad(penalty(plain), next(plain.module.parameters()))[0]
    assert float((found.double() - expected).norm()) < 0.05 * float(expected.norm())
