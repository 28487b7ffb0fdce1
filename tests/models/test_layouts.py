"""The papers' networks layer by layer: slow references, ReLU's polynomial (closed form), tracing, run folders."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import flatprobe as fp
from flatprobe.cli.training import train as train_command
from flatprobe.graph import trace
from flatprobe.models import (
    NETWORKS,
    PolynomialReLU,
    all_cnn_c,
    all_convolutional,
    build,
    layer_count,
    recipe_of,
    resnet18,
    small_alexnet,
    small_inception,
    wide_resnet,
)
from tests.helpers.properties import assert_same_state
from tests.models.test_models import BUILT, SHAPES

EXACT = {"rtol": 0, "atol": 1e-12}  # float64, and the same operations in another order


def warmed(network: nn.Module, *shape: int) -> tuple[nn.Module, Tensor]:
    """The network in float64 and eval mode with running statistics other than 0 and 1, and an input."""
    generator = torch.Generator().manual_seed(0)
    network.double()
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.running_mean.uniform_(-0.1, 0.1, generator=generator)
            layer.running_var.uniform_(0.5, 2, generator=generator)
    return network.eval(), torch.rand(2, *shape, dtype=torch.float64, generator=generator)


@pytest.mark.parametrize(("activation", "layers"), [("relu", 5), ("polynomial", 5), ("relu", 4), ("relu", 7)])
def test_slow_reference_all_convolutional(activation, layers):
    built = all_convolutional((3, 32, 40), channels=4, layers=layers, activation=activation, interval=3)
    network, x = warmed(built, 3, 32, 40)
    apply = torch.relu if activation == "relu" else PolynomialReLU(3.0)
    value = x
    for index in range(1, layers + 1):
        layer = network.get_submodule(f"conv{index}")
        before = F.conv2d(value, layer.weight, layer.bias, stride=2, padding=1)
        assert float(before.detach().abs().max()) < 2  # far inside the default interval, as its docstring says
        value = apply(before)
    assert value.shape == (2, 4, *{4: (2, 3), 5: (1, 2), 7: (1, 1)}[layers])
    torch.testing.assert_close(network(x), network.linear(value.flatten(1)), **EXACT)


def test_all_convolutional_records_its_layers_unless_they_are_those_of_older_recipes():
    assert "layers" not in recipe_of(all_convolutional((1, 8, 8)))["arguments"]
    network = all_convolutional((1, 8, 8), layers=3, seed=2)
    assert recipe_of(network)["arguments"]["layers"] == 3
    assert_same_state(build(recipe_of(network)), network)
    assert layer_count(recipe_of(network)) == 3


def test_slow_reference_all_cnn_c():
    network, x = warmed(all_cnn_c((3, 11, 10)), 3, 11, 10)
    convolutions = [layer for layer in network if isinstance(layer, nn.Conv2d)]
    norms = [layer for layer in network if isinstance(layer, nn.BatchNorm2d)]
    strides, paddings = (1, 1, 2, 1, 1, 2, 1, 1, 1), (1, 1, 1, 1, 1, 1, 0, 0, 0)
    value = x
    for convolution, norm, stride, padding in zip(convolutions, norms, strides, paddings, strict=True):
        value = torch.relu(norm(F.conv2d(value, convolution.weight, stride=stride, padding=padding)))
    assert value.shape == (2, 10, 1, 1)
    torch.testing.assert_close(network(x), network.linear(value.mean((2, 3))), **EXACT)


def test_slow_reference_small_alexnet():
    network, x = warmed(small_alexnet((3, 9, 12)), 3, 9, 12)
    value = x
    for layer in (network.conv1, network.conv2):
        value = F.max_pool2d(torch.relu(F.conv2d(value, layer.weight, layer.bias, padding=2)), 3, 2, 1)
    assert value.shape == (2, 64, 3, 3)
    value = torch.relu(network.linear2(torch.relu(network.linear1(value.flatten(1)))))
    torch.testing.assert_close(network(x), network.linear3(value), **EXACT)


def test_slow_reference_small_inception():
    network, x = warmed(small_inception((3, 8, 8)), 3, 8, 8)

    def convolved(value: Tensor, layers: nn.Sequential, stride: int = 1) -> Tensor:
        weight, norm = layers[0].weight, layers[1]
        assert norm.weight is None
        value = F.conv2d(value, weight, layers[0].bias, stride=stride, padding=weight.shape[-1] // 2)
        shape = (-1, 1, 1)
        return torch.relu((value - norm.running_mean.view(shape)) / (norm.running_var.view(shape) + norm.eps).sqrt())

    value = convolved(x, network.conv1)
    widths = []
    for index in range(1, 11):
        module = network.get_submodule(f"module{index}")
        if index in {3, 8}:
            parts = convolved(value, module.first, 2), F.max_pool2d(value, 3, 2, 1)
        else:
            parts = convolved(value, module.first), convolved(value, module.second)
            assert (module.first[0].kernel_size, module.second[0].kernel_size) == ((1, 1), (3, 3))
        value = torch.cat(parts, 1)
        widths.append(value.shape[1])
    assert widths == [64, 80, 160, 160, 160, 160, 144, 240, 336, 336]  # Zhang et al. 2017, Fig. 3
    assert value.shape[2:] == (2, 2)
    torch.testing.assert_close(network(x), network.linear(value.mean((2, 3))), **EXACT)


def preactivated(value: Tensor, block: nn.Module) -> Tensor:
    """One block of He et al. 2016b, from its convolutions, norms and projection in their order."""
    norms = [layer for layer in block.modules() if isinstance(layer, nn.BatchNorm2d)]
    convolutions = [layer for layer in block.modules() if isinstance(layer, nn.Conv2d)]
    stride = convolutions[0].stride
    first = torch.relu(norms[0](value)) if len(norms) == 2 else value
    body = F.conv2d(first, convolutions[0].weight, stride=stride, padding=1)
    body = F.conv2d(torch.relu(norms[-1](body)), convolutions[1].weight, padding=1)
    return body + (F.conv2d(first, convolutions[2].weight, stride=stride) if len(convolutions) == 3 else value)


def test_slow_reference_wide_resnet():
    network, x = warmed(wide_resnet((3, 8, 8), depth=16, widening=2), 3, 8, 8)
    value = F.conv2d(x, network.conv1.weight, padding=1)
    for stage, shape in ((1, (2, 32, 8, 8)), (2, (2, 64, 4, 4)), (3, (2, 128, 2, 2))):
        for block in (1, 2):
            value = preactivated(value, network.get_submodule(f"block{stage}_{block}"))
            assert value.shape == shape
    value = torch.relu(network.norm(value)).mean((2, 3))
    torch.testing.assert_close(network(x), network.linear(value), **EXACT)


def test_slow_reference_resnet18():
    network, x = warmed(resnet18((3, 32, 32), width=4, classes=7), 3, 32, 32)
    value = torch.relu(network.norm1(F.conv2d(x, network.conv1.weight, stride=2, padding=3)))
    value = F.max_pool2d(value, 3, 2, 1)
    for stage, shape in enumerate([(2, 4, 8, 8), (2, 8, 4, 4), (2, 16, 2, 2), (2, 32, 1, 1)], start=1):
        for block in (1, 2):
            value = preactivated(value, network.get_submodule(f"block{stage}_{block}"))
            assert value.shape == shape
    value = torch.relu(network.norm(value)).mean((2, 3))
    torch.testing.assert_close(network(x), network.linear(value), **EXACT)
    weighted = [layer for layer in network.modules() if isinstance(layer, nn.Conv2d | nn.Linear)]
    assert len(weighted) == 18 + 3  # the projections do not count


@pytest.mark.parametrize("interval", [0.5, 4.0])
def test_slow_reference_polynomial_is_the_least_squares_fit(interval):
    """The fit to values on a fine grid, whose distance from the integral's is of the order of the grid's step."""
    grid = (np.arange(200_000) + 0.5) / 100_000 - 1
    fit = np.polynomial.Polynomial.fit(grid, np.maximum(grid, 0), 10)
    layer = PolynomialReLU(interval)
    x = torch.linspace(-interval, interval, 10_001, dtype=torch.float64)
    value = layer(x)
    expected = interval * torch.from_numpy(fit((x / interval).numpy()))
    torch.testing.assert_close(value, expected, rtol=0, atol=1e-5 * interval)
    error = value - x.relu()
    # The grid of 10,001 points holds 0, where the error is largest. The trapezoidal rule errs by step^2 / 12 times the
    # jump of the integrand's slope at 0: 3e-6 of the root mean square.
    assert layer.largest_error == pytest.approx(float(error.abs().max()), rel=1e-9)
    assert layer.rms_error == pytest.approx(float(torch.trapezoid(error**2, x) / (2 * interval)) ** 0.5, rel=1e-5)


def test_closed_form_polynomial_error_is_orthogonal_to_the_polynomials():
    """int_{-1}^{1} (p(x) - max(x, 0)) x^k dx = 0 for k <= 10, by Gauss quadrature on each side of 0, and not for 12."""
    nodes, weights = np.polynomial.legendre.leggauss(20)
    half, mass = torch.from_numpy((nodes + 1) / 2), torch.from_numpy(weights / 2)
    x, mass = torch.cat([-half, half]), torch.cat([mass, mass])
    error = PolynomialReLU(1.0)(x) - x.relu()
    moments = [float((mass * error * x**k).sum()) for k in range(13)]
    assert max(map(abs, moments[:11])) < 1e-13
    assert abs(moments[12]) > 1e-6


def test_polynomial_is_a_polynomial_outside_the_interval_too():
    x = torch.arange(-6, 7, dtype=torch.float64)  # the 11th difference of a polynomial of degree 10 is zero
    value = PolynomialReLU(2.0)(x)
    assert float(np.abs(np.diff(value.numpy(), n=11)).max()) < 1e-10 * float(value.abs().max())
    assert float(value.max()) > 1e4


@pytest.mark.parametrize("interval", [0.0, -1.0, float("nan"), float("inf")])
def test_polynomial_refuses_an_interval(interval):
    with pytest.raises(ValueError, match="must be a finite number above 0"):
        PolynomialReLU(interval)


@pytest.mark.parametrize("name", list(NETWORKS))
def test_traced_steps_reproduce_the_network(name):
    network, x = warmed(BUILT[name](), *SHAPES[name])
    graph = trace(network, SHAPES[name])
    torch.testing.assert_close(graph.run(x), network(x), rtol=1e-12, atol=1e-12)
    others = {step.operation for step in graph.steps if step.kind == "other"}
    # A product of two values is no kind of step: the polynomial has such, all else is supported.
    assert others == ({"aten.mul.Tensor"} if name == "all_convolutional" else set())


def test_all_convolutional_with_relu_is_traced_into_known_steps():
    network = NETWORKS["all_convolutional"]((1, 8, 8)).eval()
    assert all(step.kind != "other" for step in trace(network, (1, 8, 8)).steps)


@pytest.mark.parametrize("name", list(NETWORKS))
def test_run_folder_rebuilds_the_network(name, tmp_path):
    inputs = torch.rand(6, *SHAPES[name], generator=torch.Generator().manual_seed(1))
    data = fp.LabelledData(inputs, torch.tensor([0, 1, 2, 0, 1, 2]))
    run = fp.train(BUILT[name](), data, epochs=1, batch_size=3, out=tmp_path / "run")
    assert_same_state(fp.load_checkpoint(tmp_path / "run"), run.model)


def test_help_of_train_names_every_network():
    described = (train_command.__doc__ or "").split("network: str")[1].split("out: Path")[0]
    assert all(name in described for name in NETWORKS)
