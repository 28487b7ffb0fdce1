"""Networks that take their inputs in by one linear layer: which they are, and the inner products formed behind it."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import weight_norm

import flatprobe as fp
from flatprobe.gram import gram, rows_of, squared_frobenius
from flatprobe.training.passes.entrance import entrance

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


def entered(network, shape, rows=CLASSES):
    network = network.double()
    generator = torch.Generator().manual_seed(1)
    points = torch.rand((SAMPLES, *shape), generator=generator, dtype=torch.float64)
    passed = fp.ForwardPass(network, points, torch.zeros(SAMPLES, dtype=torch.int64))
    return passed, entrance(passed.layers, passed.inputs, passed.logits, rows=rows)


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
    passed, (at, through) = entered(network, shape)
    assert at is not None
    weights = list(network.parameters())
    scales = torch.randn(SAMPLES, CLASSES, CLASSES, dtype=torch.float64)  # no symmetric ones
    found = gram(rows_of(passed.logits, lambda u: passed.derivative(passed.logits, u, at=at)), through)
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
    assert entered(make(), shape)[1] == (None, None)


def test_few_rows_go_to_the_inputs():
    """Six samples' row: 2 (4 * 4 * 50 + 6 * 4 * 4) = 1,792 multiplications behind, 3 * 6 * 50 * 4 = 3,600 to x."""
    make, shape = ENTERED["as it is"]
    assert entered(make(), shape, rows=1)[1] != (None, None)
    wide = nn.Sequential(nn.Linear(50, 20), nn.Tanh(), nn.Linear(20, CLASSES))
    assert entered(wide, shape, rows=1)[1] == (None, None)  # 44,800 against 18,000
    assert entered(wide, shape, rows=10)[1] != (None, None)  # 88,000 against 180,000


def test_squares_and_two_derivatives():
    """Property: the products' sum over the diagonal; derivatives of both orders by differences."""
    generator = torch.Generator().manual_seed(0)
    rows = [torch.randn(2, 3, generator=generator, dtype=torch.float64, requires_grad=True) for _ in range(2)]
    weight = torch.randn(3, 4, generator=generator, dtype=torch.float64, requires_grad=True)
    products = gram([row @ weight for row in rows])
    torch.testing.assert_close(squared_frobenius(rows, weight), products.diagonal(dim1=1, dim2=2).sum(1))

    def through(first, second, weight):
        return gram([first, second], weight)

    assert torch.autograd.gradcheck(through, (*rows, weight))
    assert torch.autograd.gradgradcheck(through, (*rows, weight))
