"""Networks that look as if their derivatives or outputs were wrong, and are not; losses and traces that end clearly."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import flatprobe as fp

DATA = fp.LabelledData(torch.randn(20, 4, generator=torch.Generator().manual_seed(1)), torch.arange(20) % 3)
TOKENS = fp.LabelledData(torch.randint(0, 7, (20, 3), generator=torch.Generator().manual_seed(2)), torch.arange(20) % 3)


def seeded(make: Callable[[], nn.Module]) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        return make().eval()


class Tokens(nn.Module):
    def __init__(self, **options: object) -> None:
        super().__init__()
        self.table, self.head = nn.Embedding(7, 4, **options), nn.Linear(12, 3)
        with torch.no_grad():
            self.table.weight.normal_()

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.table(x).flatten(1).tanh())


@pytest.mark.parametrize(
    "options", [{"padding_idx": 0}, {"padding_idx": 2}, {"sparse": True}, {"scale_grad_by_freq": True}]
)
def test_slow_reference_embeddings_are_differentiated_as_the_function_is(options: dict[str, object]) -> None:
    """Of the function of all weights: the padding row is read, and moves with the others along a direction."""
    plain, model = seeded(lambda: Tokens().double()), seeded(lambda: Tokens(**options).double())
    risk = fp.EmpiricalRisk(model, TOKENS)
    weights = {name: value.clone() for name, value in plain.named_parameters()}

    def loss(table: Tensor) -> Tensor:
        logits = torch.func.functional_call(plain, {**weights, "table.weight": table}, (TOKENS.inputs,))
        return F.cross_entropy(logits, TOKENS.labels)

    table = weights["table.weight"].detach()
    expected = torch.func.grad(loss)(table)
    found = risk.gradient()["table.weight"]
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)
    hessian = torch.autograd.functional.hessian(loss, table).reshape(28, 28)
    largest = float(torch.linalg.eigvalsh(hessian)[-1])
    assert float(fp.hessian_eigenvalues(risk, parameters="table.*").eigenvalues[0]) == pytest.approx(largest, rel=1e-4)
    assert model.table.sparse == options.get("sparse", False)


def test_a_padding_row_that_is_tied_elsewhere_is_differentiated_as_the_function_is() -> None:
    class Tied(Tokens):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) + F.linear(self.table(x).mean(1), self.other.weight)[:, :3]

    def model(**options: object) -> nn.Module:
        made = seeded(lambda: Tied(**options).double())
        made.other = nn.Linear(4, 7, bias=False)
        made.other.weight = made.table.weight
        return made.double().eval()

    found, expected = (fp.EmpiricalRisk(model(**options), TOKENS).gradient() for options in ({"padding_idx": 2}, {}))
    torch.testing.assert_close(found["table.weight"], expected["table.weight"], rtol=1e-12, atol=1e-12)


def test_ones_own_call_of_a_sparse_embedding_is_differentiated_too() -> None:
    class Own(Tokens):
        def forward(self, x: Tensor) -> Tensor:
            return self.head(F.embedding(x, self.table.weight, 2, sparse=True).flatten(1).tanh())

    found = fp.EmpiricalRisk(seeded(lambda: Own().double()), TOKENS).gradient()["table.weight"]
    expected = fp.EmpiricalRisk(seeded(lambda: Tokens().double()), TOKENS).gradient()["table.weight"]
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("options", [{"sparse": True}, {"scale_grad_by_freq": True}])
def test_bags_of_embeddings_are_differentiated_as_the_function_is(options: dict[str, object]) -> None:
    class Bag(nn.Module):
        def __init__(self, **options: object) -> None:
            super().__init__()
            self.table, self.head = nn.EmbeddingBag(7, 4, mode="sum", padding_idx=1, **options), nn.Linear(4, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.table(x).tanh())  # type: ignore[no-any-return]

    def gradient(**options: object) -> Tensor:
        return fp.EmpiricalRisk(seeded(lambda: Bag(**options).double()), TOKENS).gradient()["table.weight"]

    found, expected = gradient(**options), gradient()
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


def test_a_sparse_gradient_is_told() -> None:
    class Raw(Tokens):
        def forward(self, x: Tensor) -> Tensor:
            return self.head(torch.embedding(self.table.weight, x, -1, False, True).flatten(1))  # type: ignore[no-any-return]

    with pytest.raises(ValueError, match=r"Raw has a sparse gradient, of shape \(7, 4\); expected dense ones"):
        fp.EmpiricalRisk(seeded(Raw), TOKENS).gradient()


class Spectral(nn.Module):
    """Weights read as complex numbers, which torch wants at an even place of their memory."""

    def __init__(self) -> None:
        super().__init__()
        self.bias, self.weight = nn.Parameter(torch.zeros(1)), nn.Parameter(torch.randn(6, 4, 2))
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        turned = x.to(torch.cdouble) @ torch.view_as_complex(self.weight)
        return self.head(turned.abs()) + self.bias  # type: ignore[no-any-return]


def test_slow_reference_the_hessian_of_real_weights_that_are_viewed_as_complex() -> None:
    model = seeded(lambda: Spectral().double())
    data = fp.LabelledData(torch.randn(12, 6, dtype=torch.float64), torch.arange(12) % 3)
    names = [name for name, _ in model.named_parameters()]
    center = [parameter.detach().clone() for parameter in model.parameters()]

    def loss(*values: Tensor) -> Tensor:
        logits = torch.func.functional_call(model, dict(zip(names, values, strict=True)), (data.inputs,))
        return F.cross_entropy(logits, data.labels)

    blocks = torch.autograd.functional.hessian(loss, tuple(center))
    rows = [
        torch.cat([block.reshape(a.numel(), -1) for block in row], 1) for a, row in zip(center, blocks, strict=True)
    ]
    largest = float(torch.linalg.eigvalsh(torch.cat(rows))[-1])
    assert float(fp.hessian_eigenvalues(fp.EmpiricalRisk(model, data)).eigenvalues[0]) == pytest.approx(
        largest, rel=1e-4
    )


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
    model = seeded(lambda: Trunk(how, dtype))
    exact = nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.Linear(16, 3)).double().eval()
    exact[0].load_state_dict(model.body.state_dict())
    exact[2].load_state_dict(model.head.state_dict())
    found, expected = fp.jacobian_norms(model, DATA).values, fp.jacobian_norms(exact, DATA).values
    torch.testing.assert_close(found, expected, rtol=0.05 if dtype == torch.bfloat16 else 0.01, atol=0)
    fp.jacobian_maximum(model, DATA)
    fp.hessian_trace(fp.EmpiricalRisk(model, DATA), draws=2)


def test_half_precision_without_any_gradient_is_still_told() -> None:
    class Cut(Trunk):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x).detach()

    with pytest.raises(ValueError, match="derivative that autograd gives of Cut in its inputs is not"):
        fp.jacobian_norms(seeded(lambda: Cut("casts", torch.float16)), DATA)


ENERGIES: dict[str, Callable[[Tensor], Tensor]] = {
    "detached": lambda x: x.detach().requires_grad_(),
    "cloned": lambda x: x.detach().clone().requires_grad_(),
    "changed": lambda x: (2 * x.detach()).view(len(x), 2, 2).requires_grad_(),
    "kept": lambda x: x if x.requires_grad else x.clone().requires_grad_(),
}


class Energy(nn.Module):
    """Logits made of the gradient of an energy in the inputs."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.body, self.head, self.how = nn.Linear(4, 8), nn.Linear(4, 3), how

    def forward(self, x: Tensor) -> Tensor:
        with torch.enable_grad():
            x = ENERGIES[self.how](x)
            energy = self.body(x.flatten(1)).tanh().square().sum()
            (force,) = torch.autograd.grad(energy, x, create_graph=True)
        return self.head(force.flatten(1))


@pytest.mark.parametrize("how", ENERGIES)
def test_leaves_that_forward_makes_of_its_inputs_are_no_weights(how: str) -> None:
    model = seeded(lambda: Energy(how).double())
    risk = fp.EmpiricalRisk(model, DATA)
    assert risk().loss == pytest.approx(float(F.cross_entropy(model(DATA.inputs.double()), DATA.labels).detach()))
    assert fp.hessian_eigenvalues(risk).eigenvalues.isfinite().all()
    assert fp.flatness_radius(risk, directions=1).reached.all()


def test_a_weight_of_the_inputs_shape_in_a_plain_list_is_still_named() -> None:
    class Plain(Energy):
        def __init__(self) -> None:
            super().__init__("cloned")
            self.plain = [nn.Linear(4, 8).double()]

        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) + self.plain[0](x)[:, :3]

    with pytest.raises(ValueError, match=r"depend on 2 tensors that require gradients .*, of shapes \(8"):
        fp.EmpiricalRisk(seeded(lambda: Plain().double()), DATA)


class Squeezed(nn.Module):
    def __init__(self, *, inside: bool) -> None:
        super().__init__()
        self.first, self.head, self.inside = nn.Conv2d(1, 6, 4), nn.Linear(6, 3), inside

    def forward(self, x: Tensor) -> Tensor:
        z = self.first(x)
        return self.head(z.squeeze().flatten(1)) if self.inside else self.head(z.flatten(1))[..., None].squeeze()


@pytest.mark.parametrize("inside", [False, True])
@pytest.mark.parametrize(("samples", "size"), [(9, 4), (9, 1), (1, None)])
def test_a_single_sample_is_not_squeezed_away(samples: int, size: int | None, *, inside: bool) -> None:
    model = seeded(lambda: Squeezed(inside=inside).double())
    images = torch.randn(9, 1, 4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    data = fp.LabelledData(images[:samples], torch.arange(samples) % 3, classes=3)
    with torch.no_grad():
        logits = model(images)[:samples]
    risk = fp.EmpiricalRisk(model, data, batch_size=size)
    assert risk().loss == pytest.approx(float(F.cross_entropy(logits, data.labels)), rel=1e-12)
    assert risk.gradient().keys() == dict(model.named_parameters()).keys()
    whole = fp.jacobian_norms(model, data, batch_size=9).values
    torch.testing.assert_close(fp.jacobian_norms(model, data, batch_size=size).values, whole, rtol=1e-9, atol=0)
    assert len(fp.geometric_margins(model, data, lower=(), upper="deepfool", batch_size=size).upper) == samples


def test_a_squeeze_behind_plain_layers_is_none_either() -> None:
    class Squeeze(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.squeeze()

    model = seeded(lambda: nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3), Squeeze()).double())
    small, whole = (fp.EmpiricalRisk(model, DATA, batch_size=size) for size in (19, 20))
    line = fp.interpolate(small, [model, small.center], fp.segment(steps=2)).loss.tolist()
    assert line == pytest.approx([whole().loss] * 2, rel=1e-12)


def test_what_a_single_sample_cannot_repair_is_told_as_before() -> None:
    with pytest.raises(ValueError, match=r"the output of Linear is shape \(1, 1\)"):
        fp.functional_margins(nn.Linear(4, 1).eval(), fp.LabelledData(torch.zeros(1, 4), torch.tensor([0]), classes=2))


def undefined(value: float) -> Callable[[Tensor, Tensor], Tensor]:
    def loss(logits: Tensor, labels: Tensor) -> Tensor:
        values = F.cross_entropy(logits, labels, reduction="none")
        return torch.where((labels == 2) & (torch.arange(len(labels)) >= 0), value, values)

    return loss


PROBES: dict[str, Callable[[fp.EmpiricalRisk], object]] = {
    "risk": lambda risk: risk(),
    "radius": lambda risk: fp.flatness_radius(risk, directions=1),
    "slice": lambda risk: fp.random_slice(risk, dimensions=1, steps=3),
    "gradient": lambda risk: risk.gradient(),
    "eigenvalues": fp.hessian_eigenvalues,
    "trace": lambda risk: fp.hessian_trace(risk, draws=2),
    "noise": lambda risk: fp.gradient_noise(risk, batch_size=4, draws=2),
    "sharpness": fp.worst_case_sharpness,
}


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("probe", PROBES)
def test_a_loss_that_is_not_finite_is_named_with_the_sample(probe: str, value: float) -> None:
    """Its gradient there is 0, so that derivatives alone do not show it."""
    labels = torch.zeros(20, dtype=torch.long)
    labels[17] = 2
    data = fp.LabelledData(DATA.inputs, labels, classes=3)
    risk = fp.EmpiricalRisk(seeded(lambda: nn.Linear(4, 3)), data, loss=undefined(value), batch_size=8)
    message = rf"the loss \S*undefined\S* of sample 17 \(label 2\) is {value} at the network's own weights though"
    with pytest.raises(ValueError, match=message):
        PROBES[probe](risk)


def test_a_forward_that_looks_at_values_is_told_without_torchs_graph(capfd: pytest.CaptureFixture[str]) -> None:
    class Looking(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(x) if x.mean().item() > 0 else self.layer(2 * x)

    with pytest.raises(
        ValueError, match=r"cannot be traced on .* \(its forward decides by the values of a tensor: look"
    ):
        fp.weight_norms(Looking().eval(), 4)
    captured = capfd.readouterr()
    assert (captured.out, captured.err) == ("", "")
