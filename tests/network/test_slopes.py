"""Networks whose derivatives by autograd are not those of the function, and networks that only look like it."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

import flatprobe as fp
from flatprobe.risk.empirical import EmpiricalRisk
from tests.helpers import strange, strange_modules

DATA = strange.data(24)


class Reversed(torch.autograd.Function):
    """A gradient scaled and reversed on its way back."""

    @staticmethod
    def forward(_ctx: Any, z: Tensor) -> Tensor:
        return z.view_as(z)

    @staticmethod
    def backward(_ctx: Any, gradient: Tensor) -> Tensor:
        return -0.3 * gradient


class Remembers(torch.autograd.Function):
    """tanh^2 by an intermediate value that is kept: right once, wrong twice."""

    @staticmethod
    def forward(ctx: Any, z: Tensor) -> Tensor:
        ctx.t = z.tanh()
        return ctx.t * ctx.t

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient * 2 * ctx.t * (1 - ctx.t**2)


def _hooked(z: Tensor) -> Tensor:
    if z.requires_grad:
        z.register_hook(lambda gradient: 0.1 * gradient)
    return z


def _without_gradient(body: nn.Module, x: Tensor) -> Tensor:
    with torch.no_grad():
        return body(x)


BODIES: dict[str, Any] = {
    "plain": lambda body, x: body(x),
    "no_grad": _without_gradient,
    "detach": lambda body, x: body(x).detach(),
    "data": lambda body, x: F.linear(x, body[0].weight.data, body[0].bias.data).tanh(),
    "partly detached": lambda body, x: 0.8 * body(x) + 0.2 * body(x).detach(),
    "hook": lambda body, x: _hooked(body(x)),
    "reversal": lambda body, x: Reversed.apply(body(x)),
    "straight-through": lambda body, x: body(x) + (body(x).sign() - body(x)).detach(),
    "remembers": lambda body, x: Remembers.apply(body[0](x)),
    "reentrant": lambda body, x: checkpoint(body, x, use_reentrant=True),
    "kinks at 0": lambda body, x: body[0](x * 0).relu() + body(x),
    "ties": lambda body, x: F.max_pool1d(body(x * 0)[:, None], 2).repeat(1, 1, 2)[:, 0] + body(x),
    "rounded inputs": lambda body, x: body((16 * x).round() / 16),
    "single precision inside": lambda body, x: body(x).float().exp().to(x.dtype),
    "checkpointed": lambda body, x: checkpoint(body, x, use_reentrant=False),
}


ONCE = {"no_grad", "detach", "data", "partly detached", "hook", "reversal", "straight-through", "reentrant"}


class Cut(strange_modules.Nested):
    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how

    def forward(self, x: Tensor) -> Tensor:
        return self.head(BODIES[self.how](self.body, x))


def network(how: str) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Cut(how).double().eval()


WEIGHT_SPACE = {
    "trace": lambda risk: fp.hessian_trace(risk, draws=2),
    "eigenvalues": fp.hessian_eigenvalues,
    "sharpness": fp.worst_case_sharpness,
    "noise": lambda risk: fp.gradient_noise(risk, batch_size=8, draws=2),
}


@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad")
@pytest.mark.parametrize("how", BODIES)
def test_derivatives_that_are_not_the_functions_are_refused_and_no_others(how: str) -> None:
    risk = fp.EmpiricalRisk(network(how), DATA)
    assert fp.flatness_radius(risk, directions=1).radii.numel() == 1  # needs none
    for probe, call in WEIGHT_SPACE.items():
        order = "first" if how in ONCE else "second" if how == "remembers" and probe in {"trace", "eigenvalues"} else ""
        if order:
            with pytest.raises(ValueError, match=f"the {order} derivative that autograd gives of Cut in its weights"):
                call(risk)
        else:
            call(risk)


def test_the_parameters_that_no_gradient_arrives_at_are_named() -> None:
    with pytest.raises(ValueError, match=r"no gradient arrives at 'body\.0\.weight', 'body\.0\.bias'; expected"):
        fp.EmpiricalRisk(network("detach"), DATA).gradient()


def test_a_selection_whose_derivatives_are_right_is_taken() -> None:
    risk = fp.EmpiricalRisk(network("no_grad"), DATA)
    assert fp.hessian_eigenvalues(risk, parameters="last").summary()["eigenvalue"] > 0


@pytest.mark.parametrize("how", ["no_grad", "partly detached", "hook", "reversal", "straight-through"])
def test_jacobians_that_are_not_the_functions_are_refused(how: str) -> None:
    for method in ("gram", "lanczos"):
        with pytest.raises(ValueError, match="the first derivative that autograd gives of Cut in its inputs is not"):
            fp.jacobian_norms(network(how), DATA, method=method)
    for along in ("samples", "segments"):
        with pytest.raises(ValueError, match="the first derivative that autograd gives of Cut in its inputs is not"):
            fp.jacobian_maximum(network(how), DATA, along=along, pairs=2)


@pytest.mark.parametrize("lower", ["gamma_1", "gamma_2", "gradient"])
@pytest.mark.parametrize("how", ["partly detached", "hook", "reversal", "straight-through"])
def test_estimates_by_derivatives_that_are_not_the_functions_are_refused(how: str, lower: str) -> None:
    """Points that an attack finds are checked by forward passes, so upper ends need no derivative to be right."""
    fp.geometric_margins(network(how), DATA, lower=(), upper="deepfool")
    with pytest.raises(ValueError, match="the first derivative that autograd gives of Cut in its inputs is not"):
        fp.geometric_margins(network(how), DATA, lower=lower, upper="deepfool")


@pytest.mark.parametrize("how", ["plain", "checkpointed", "kinks at 0", "ties", "single precision inside"])
def test_input_derivatives_that_are_right_are_taken(how: str) -> None:
    norms = fp.jacobian_norms(network(how), DATA)
    assert fp.jacobian_maximum(network(how), DATA).values.tolist() == pytest.approx(norms.values.tolist(), rel=1e-9)
    lower = ("gamma_1", "gamma_2", "gradient")
    assert fp.geometric_margins(network(how), DATA, lower=lower, upper="deepfool").lower.isfinite().all()


@pytest.mark.parametrize("where", ["center", "elsewhere"])
def test_slow_reference_checkpointed_gradients_and_products_are_those_of_the_weights_in_question(where: str) -> None:
    """The recomputation in the backward pass ran at the network's own weights, wherever the gradient was meant."""
    plain, saving = (fp.EmpiricalRisk(network(how), DATA) for how in ("plain", "checkpointed"))
    shift = 0.3 if where == "elsewhere" else 0.0
    point = {name: value + shift * value.flip(0) for name, value in plain.center.items()}
    for found, expected in ((saving.gradient(point), plain.gradient(point)),
                            (saving.hvp(point, point), plain.hvp(point, point))):  # fmt: skip
        for name, value in expected.items():
            torch.testing.assert_close(found[name], value, rtol=1e-9, atol=1e-12)


class Bag(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table, self.head = nn.EmbeddingBag(20, 8, mode="sum"), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.table(x))


class Distances(strange_modules.Nested):
    def forward(self, x: Tensor) -> Tensor:
        return -torch.cdist(self.body(x), self.head.weight, compute_mode="donot_use_mm_for_euclid_dist")


def test_a_missing_second_derivative_is_told_with_the_layer_and_a_fix() -> None:
    tokens = fp.LabelledData(torch.arange(60).view(12, 5) % 20, torch.arange(12) % 3)
    with pytest.raises(
        ValueError, match=r"twice .*_embedding_bag.* the layer 'table' \(EmbeddingBag\).* nn.Embedding and"
    ):
        fp.hessian_trace(fp.EmpiricalRisk(Bag().double().eval(), tokens))
    model = Distances().double().eval()
    with pytest.raises(ValueError, match=r"_cdist.* its own forward, outside its layers.*use_mm_for_euclid_dist"):
        fp.hessian_trace(fp.EmpiricalRisk(model, DATA))
    with pytest.raises(ValueError, match="use_mm_for_euclid_dist"):
        fp.jacobian_norms(model, DATA, method="lanczos")
    with pytest.raises(ValueError, match="use_mm_for_euclid_dist"):
        fp.train(model, DATA, epochs=1, penalties=[(0.1, "double_backpropagation")])


@pytest.mark.parametrize("seed", range(5))
def test_property_ordinary_networks_pass_in_both_precisions(seed: int) -> None:
    """ReLU and max pooling have kinks; a step small enough crosses none of them."""
    for model in (fp.models.mlp((1, 8, 8), seed=seed), fp.models.resnet((1, 8, 8), depth=10, width=8, seed=seed)):
        data = fp.LabelledData(torch.rand(16, 1, 8, 8), torch.arange(16) % 10)
        for precision in (model.eval(), model.double().eval()):
            risk = EmpiricalRisk(precision, data)
            risk.hvp(None, risk.center)
            fp.jacobian_norms(precision, data)


VECTORS = fp.LabelledData(torch.randn(20, 4, generator=torch.Generator().manual_seed(1)), torch.arange(20) % 3)


class Trunk(nn.Module):
    """Half precision inside, by the weights, by casts or by autocast."""

    def __init__(self, how: str, dtype: torch.dtype) -> None:
        super().__init__()
        self.body, self.head, self.how, self.dtype = nn.Linear(4, 16), nn.Linear(16, 3), how, dtype
        if how == "weights":
            self.body.to(dtype)

    def forward(self, x: Tensor) -> Tensor:
        if self.how == "autocast":
            with torch.autocast("cpu", self.dtype):
                return self.head(self.body(x).tanh()).float()
        weight, bias = self.body.weight.to(self.dtype), self.body.bias.to(self.dtype)
        z = F.linear(x.to(self.dtype), weight, bias).tanh()
        return self.head(z.to(self.head.weight.dtype))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("how", ["weights", "casts", "autocast"])
def test_slow_reference_half_precision_inside_is_no_wrong_derivative(how: str, dtype: torch.dtype) -> None:
    model = strange.seeded(lambda: Trunk(how, dtype))
    exact = nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.Linear(16, 3)).double().eval()
    exact[0].load_state_dict(model.body.state_dict())
    exact[2].load_state_dict(model.head.state_dict())
    found, expected = fp.jacobian_norms(model, VECTORS).values, fp.jacobian_norms(exact, VECTORS).values
    torch.testing.assert_close(found, expected, rtol=0.05 if dtype == torch.bfloat16 else 0.01, atol=0)
    fp.jacobian_maximum(model, VECTORS)
    fp.hessian_trace(fp.EmpiricalRisk(model, VECTORS), draws=2)


def test_half_precision_without_any_gradient_is_still_told() -> None:
    class Cut(Trunk):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x).detach()

    with pytest.raises(ValueError, match="derivative that autograd gives of Cut in its inputs is not"):
        fp.jacobian_norms(strange.seeded(lambda: Cut("casts", torch.float16)), VECTORS)
