"""The networks: parameter counts (closed form), recipes and seeds (property), refusals."""

import copy

import pytest
import torch
from torch import nn

from flatprobe.models import (
    NETWORKS,
    Normalise,
    Normalised,
    Residual,
    all_cnn_c,
    all_convolutional,
    build,
    mlp,
    recipe_of,
    resnet,
    resnet18,
    scaled,
    small_alexnet,
    small_inception,
    sokolic_cnn,
    thumwanit_cnn,
    wide_resnet,
)
from flatprobe.utils.seeding import seeded
from tests.helpers.properties import assert_same_state

BUILT = {
    "mlp": lambda **more: mlp((1, 8, 8), widths=(7, 5), classes=3, activation="tanh", **more),
    "sokolic_cnn": lambda **more: sokolic_cnn((1, 8, 8), classes=3, **more),
    "thumwanit_cnn": lambda **more: thumwanit_cnn((2, 18, 19), classes=3, **more),
    "resnet": lambda **more: resnet((1, 8, 8), depth=10, width=4, classes=3, **more),
    "all_convolutional": lambda **more: all_convolutional(
        (1, 8, 8), channels=4, activation="polynomial", interval=3, classes=3, **more
    ),
    "all_cnn_c": lambda **more: all_cnn_c((1, 9, 9), classes=3, **more),
    "small_alexnet": lambda **more: small_alexnet((1, 8, 8), classes=3, **more),
    "small_inception": lambda **more: small_inception((1, 8, 8), classes=3, **more),
    "wide_resnet": lambda **more: wide_resnet((1, 8, 8), depth=10, widening=1, classes=3, **more),
    "resnet18": lambda **more: resnet18((1, 8, 8), width=4, classes=3, **more),
}
SHAPES = dict.fromkeys(NETWORKS, (1, 8, 8)) | {"thumwanit_cnn": (2, 18, 19), "all_cnn_c": (1, 9, 9)}


def count(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def wide_resnet_count(blocks: int, widening: int) -> int:
    """Layer by layer: convolutions without bias, two numbers a channel for each BatchNorm, a linear layer."""
    total, inputs = 3 * 16 * 9, 16
    for filters in (16 * widening, 32 * widening, 64 * widening):
        total += inputs * filters
        for _ in range(blocks):
            total += 2 * inputs + 9 * inputs * filters + 2 * filters + 9 * filters * filters
            inputs = filters
    return total + 2 * inputs + 10 * (inputs + 1)


@pytest.mark.parametrize(
    ("network", "expected"),
    [
        (lambda: mlp((3, 28, 28)), 1_209_866),  # T3 Table 2
        (lambda: thumwanit_cnn((1, 28, 28)), 93_322),  # as printed in the source
        (lambda: thumwanit_cnn((3, 32, 32)), 122_570),
        (lambda: sokolic_cnn((1, 28, 28)), 32 * 26 + 32 * 801 + 10 * (32 * 49 + 1)),
        # He et al.'s ResNet-20 (269,722 with parameter-free shortcuts) and two projections with BatchNorm.
        (lambda: resnet((3, 32, 32)), 269_722 + (16 * 32 + 64) + (32 * 64 + 128)),
        # N20 section 7.1.2: one block a stage of 16, 32 and 64 filters; the block that a stage of ResNet-20 has beyond
        # the first is two 3x3 convolutions with BatchNorm, and two of them are missing.
        (
            lambda: resnet((3, 32, 32), depth=10),
            272_474 - sum(2 * 2 * (9 * k * k + 2 * k) for k in (16, 32, 64)),
        ),
        (lambda: mlp((4,), widths=()), 10 * 5),
        (lambda: all_convolutional((3, 32, 32)), 9_898),  # as printed in the source
        (lambda: all_convolutional((3, 32, 32), activation="polynomial"), 9_898),
        # Without the fifth convolution the last map has four pixels.
        (lambda: all_convolutional((3, 32, 32), layers=4), 9_898 - (9 * 16 * 16 + 16) + 3 * 16 * 10),
        (lambda: all_convolutional((3, 32, 32), layers=1), 28 * 16 + 10 * (16 * 256 + 1)),
        (lambda: small_alexnet((3, 28, 28)), 1_387_786),  # T3 Table 2
        (lambda: small_inception((3, 28, 28)), 1_649_402),  # T3 Table 2
        (lambda: wide_resnet((3, 28, 28)), 8_949_210),  # T3 Table 2
        (lambda: wide_resnet((3, 32, 32), depth=22, widening=5), wide_resnet_count(3, 5)),
        (lambda: resnet18((3, 112, 112)), 11_689_512 - 2 * (128 + 256 + 512)),  # torchvision's; its projections' norms
        # Springenberg et al.'s convolutions (1.3 million), BatchNorm, the softmax layer.
        (
            lambda: all_cnn_c((3, 32, 32)),
            9 * (3 * 96 + 2 * 96**2 + 96 * 192 + 3 * 192**2) + 192**2 + 1_920 + 2 * (3 * 96 + 5 * 192 + 10) + 110,
        ),
    ],
)
def test_parameter_counts_closed_form(network, expected):
    assert count(network()) == expected


def test_resnet_depth_counts_the_layers_with_a_weight_matrix():
    for depth in (10, 16, 22):
        network = resnet((3, 8, 8), depth=depth, width=2)
        layers = [layer for layer in network.modules() if isinstance(layer, nn.Conv2d | nn.Linear)]
        assert len(layers) == depth


def test_resnet_against_a_loop_over_its_blocks():
    network = resnet((1, 8, 8), depth=10, width=4, classes=3).eval()
    x = torch.rand(2, 1, 8, 8)
    value = torch.relu(network.norm1(network.conv1(x)))
    for stage in (1, 2, 3):
        block = network.get_submodule(f"block{stage}_1")
        assert isinstance(block, Residual)
        value = torch.relu(block.shortcut(value) + block.body(value))
    assert value.shape == (2, 16, 2, 2)
    torch.testing.assert_close(network(x), network.linear(value.mean((2, 3))))


@pytest.mark.parametrize("name", list(NETWORKS))
def test_output_shape_recipe_and_seed(name):
    network = BUILT[name]()
    assert isinstance(network, nn.Sequential)
    assert network.training
    assert network.eval()(torch.zeros(2, *SHAPES[name])).shape == (2, 3)
    assert recipe_of(network)["name"] == name
    assert_same_state(build(recipe_of(network)), network)
    assert recipe_of(copy.deepcopy(network)) == recipe_of(network)
    first, other = next(BUILT[name](seed=1).parameters()), next(network.parameters())
    assert not torch.equal(first, other)


@pytest.mark.parametrize("name", ["mlp", "sokolic_cnn", "thumwanit_cnn"])
def test_dropout_leaves_the_weights_and_is_recorded(name):
    """Closed form: the same parameters to the bit; at rate 0 no layer and no word in the recipe."""
    plain, dropped = BUILT[name](), BUILT[name](dropout=0.25)
    assert [layer.p for layer in dropped.modules() if isinstance(layer, nn.Dropout)] == [0.25] * (1 + (name == "mlp"))
    assert "dropout" not in recipe_of(plain)["arguments"]
    assert recipe_of(BUILT[name](dropout=0.0)) == recipe_of(plain)
    assert_same_state(dropped, plain)
    rebuilt = build(recipe_of(dropped))
    assert [type(layer) for layer in rebuilt] == [type(layer) for layer in dropped]
    x = torch.rand(2, *SHAPES[name])
    assert torch.equal(dropped.eval()(x), plain.eval()(x))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        assert not torch.equal(dropped.train()(x), plain(x))
    last = [type(layer) for layer in dropped][-2:]
    assert last == [nn.Dropout, nn.Linear]


@pytest.mark.parametrize("name", list(NETWORKS))
def test_building_leaves_the_random_state(name):
    before = torch.random.get_rng_state()
    BUILT[name](seed=3)
    assert torch.equal(before, torch.random.get_rng_state())
    torch.manual_seed(1)
    first = BUILT[name]()
    torch.manual_seed(2)
    assert_same_state(first, BUILT[name]())


def test_seeded_restores_after_an_exception():
    before = torch.random.get_rng_state()
    with pytest.raises(ZeroDivisionError), seeded(0):
        torch.rand(1 // 0)
    assert torch.equal(before, torch.random.get_rng_state())


def test_normalised_closed_form():
    x = torch.rand(4, 3, 2, 2, dtype=torch.float64)
    mean, std = [0.1, 0.2, 0.3], [0.5, 0.25, 2.0]
    network = nn.Sequential(nn.Flatten(), nn.Linear(12, 5)).double().eval()
    whole = Normalised(network, mean, std)
    expected = torch.stack([(x[:, c] - mean[c]) / std[c] for c in range(3)], dim=1)
    torch.testing.assert_close(whole(x), network(expected), rtol=1e-12, atol=1e-12)
    assert not any(layer.training for layer in whole.modules())
    assert whole[0].mean.dtype == torch.float64
    assert whole[1] is network
    torch.testing.assert_close(Normalise(0.5, 0.25)(x.float()), (x.float() - 0.5) / 0.25)


def test_normalised_recipe_nests():
    network = Normalised(mlp((3, 2, 2), widths=(4,), seed=5), torch.tensor([0.25, 0.5, 0.75]), 0.5)
    rebuilt = build(recipe_of(network))
    assert isinstance(rebuilt, Normalised)
    assert_same_state(rebuilt, network)
    assert recipe_of(Normalised(nn.Linear(2, 3), 0, 1)) is None


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: mlp((4,), activation="gelu"), "the activation 'gelu' is unknown; expected one of relu"),
        (lambda: mlp((4,), widths=(3, 0)), r"widths is \(3, 0\); expected at least 1"),
        (lambda: mlp((0, 4)), r"input_shape is \(0, 4\)"),
        (lambda: mlp(()), r"input_shape is \(\)"),
        (lambda: mlp((4,), dropout=1.0), r"dropout is 1\.0; expected a probability, at least 0 and below 1"),
        (lambda: sokolic_cnn((1, 8, 8), dropout=-0.1), r"dropout is -0\.1; expected a probability"),
        (lambda: thumwanit_cnn((1, 18, 18), dropout=2), r"dropout is 2; expected a probability"),
        (lambda: mlp((4,), classes=1), "classes is 1; expected at least 2"),
        (lambda: sokolic_cnn((8, 8)), r"input_shape is \(8, 8\); sokolic_cnn expects \(channels, height, width\)"),
        (lambda: sokolic_cnn((1, 8, 3)), "8 x 3 pixels is too small for sokolic_cnn.*at least 4 x 4"),
        (lambda: thumwanit_cnn((1, 8, 8)), "8 x 8 pixels is too small for thumwanit_cnn.*at least 18 x 18"),
        (lambda: resnet((1, 8, 8), depth=20), r"depth is 20; expected 6 n \+ 4"),
        (lambda: resnet((1, 8, 8), width=0), r"width must be at least 1.*, got 0"),
        (lambda: all_convolutional((1, 8, 8), channels=0), "channels must be at least 1, got 0"),
        (lambda: all_convolutional((1, 8, 8), layers=0), "layers must be at least 1, got 0"),
        (
            lambda: all_convolutional((1, 8, 8), activation="tanh"),
            "'tanh' is unknown; expected one of relu, polynomial",
        ),
        (lambda: all_convolutional((8,)), r"all_convolutional expects \(channels, height, width\)"),
        (lambda: all_cnn_c((1, 8, 8)), "8 x 8 pixels is too small for all_cnn_c.*at least 9 x 9"),
        (lambda: small_alexnet((8, 8)), r"small_alexnet expects \(channels, height, width\)"),
        (lambda: small_inception((1, 8, 8), classes=1), "classes is 1; expected at least 2"),
        (lambda: wide_resnet((1, 8, 8), depth=18), r"depth is 18; expected 6 n \+ 4"),
        (lambda: wide_resnet((1, 8, 8), widening=0), "widening is 0; expected a factor of at least 1"),
        (lambda: resnet18((1, 8, 8), width=0), "width must be at least 1 filter, got 0"),
        (lambda: Normalise(0.0, 0.0), "expected finite numbers, std above 0"),
        (lambda: Normalise(float("nan"), 1.0), "expected finite numbers"),
        (lambda: Normalise([0.1, 0.2], [1.0, 1.0, 1.0]), "mean has 2 entries and std 3"),
        (lambda: Normalise([0.1, 0.2, 0.3], 1.0)(torch.zeros(2, 1, 4, 4)), "1 channels; expected 3"),
        (lambda: build({"name": "vgg", "arguments": {}}), "the network 'vgg' is unknown; expected one of mlp"),
        (lambda: build({"arguments": {}}), "as network.recipe holds it"),
        (lambda: build({"name": "mlp", "arguments": {"wide": 3}}), "the recipe of 'mlp' does not fit"),
    ],
)
def test_refusals(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_scaled_weights_leave_the_original_and_what_is_no_weight():
    """Closed form: degree three in the weights of a ReLU network of three layers without biases."""
    network = mlp((4,), widths=(5, 6), classes=3)
    with torch.no_grad():
        for value in network.parameters():
            if value.ndim == 1:
                value.zero_()
    x = torch.rand(7, 4, generator=torch.Generator().manual_seed(0))
    before = network(x)
    torch.testing.assert_close(scaled(network, 0.5)(x), before / 8)
    assert torch.equal(network(x), before)
    normalised = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    grown = scaled(normalised, 3.0)
    assert torch.equal(grown[0].weight, 3 * normalised[0].weight)
    for name in ("0.bias", "1.weight", "1.bias"):
        assert torch.equal(grown.get_parameter(name), normalised.get_parameter(name)), name
    with pytest.raises(ValueError, match=r"factor must be a positive finite number.*, got 0"):
        scaled(network, 0)
