"""S17 Theorem 5, eq. 55, Table I with Lemma 1, and the example of section III-IV: statements on layers.

All networks are random and in float64, without training.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import combinations, pairwise

import pandas as pd
import torch
from torch import Tensor, nn

import flatprobe as fp
from analyses.reproduction import Outcome, Reproduction
from analyses.rules import exact
from analyses.study import Study

ALGEBRA = 1e-9  # tolerance of an identity in float64, relative
INPUTS = 20  # dimension
CLASSES = 10
BLOCKS = 4  # of the residual network
RANGE = 12.0  # inputs of an activation, from -RANGE to RANGE
BOUNDS = {"relu": 1.0, "sigmoid": 0.25, "tanh": 1.0}  # S17 Table I
POOLING = 2  # side of a pooling region


@dataclass(frozen=True)
class Settings:
    """Random networks, their hidden widths, and samples."""

    networks: int
    widths: tuple[int, ...]
    samples: int


def normal(*shape: int, seed: int) -> Tensor:
    """Standard normal numbers in float64."""
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def difference(found: Tensor, expected: Tensor) -> float:
    """Largest difference, relative to the largest expected value."""
    return float((found - expected).abs().max() / expected.abs().max())


def batch_normalised(settings: Settings, _study: Study) -> pd.DataFrame:
    """A network normalised by eqs 46 and 47, and the one with unit rows of Theorem 5's proof, per random network."""
    rows = []
    for network in range(settings.networks):
        sizes = (INPUTS, *settings.widths, CLASSES)
        weights = [normal(m, n, seed=10 * network + layer) for layer, (n, m) in enumerate(pairwise(sizes))]
        inputs = normal(settings.samples, INPUTS, seed=10 * network + 9)
        # Eq. 46: each pre-activation is divided by its root of the sum of squares over the samples, eq. 47.
        outputs = reduce(lambda z, W: normalise(z @ W.T, last=W is weights[-1]), weights, inputs)
        # Theorem 5: the normalization moves through ReLU into the next weights, and their rows absorb it.
        z, scale, unit = inputs, torch.ones(INPUTS, dtype=torch.float64), []
        for W in weights:
            unit.append(nn.functional.normalize(W * scale, dim=1))
            linear = z @ unit[-1].T
            scale = 1 / linear.norm(dim=0)
            z = linear.relu()
        last = linear * scale  # N(z, W_L) W_L: the exception that the theorem names
        row_error = max(float((W.norm(dim=1) - 1).abs().max()) for W in unit)
        rows.append({"network": network, "output_error": difference(last, outputs), "row_error": row_error})
    return pd.DataFrame(rows)


def normalise(linear: Tensor, *, last: bool) -> Tensor:
    """Eq. 46: N z, with ReLU in all layers but the last."""
    scaled = linear / linear.norm(dim=0)
    return scaled if last else scaled.relu()


def batch_rules(table: pd.DataFrame) -> list[Outcome]:
    """Theorem 5."""
    return [
        exact(
            "batch normalization with ReLU is a network of unit rows, up to the last layer's normalization",
            float(table["output_error"].max()), tolerance=ALGEBRA, problems=len(table), unit="relative difference",
        ),
        exact("its rows have norm 1", float(table["row_error"].max()), tolerance=ALGEBRA, problems=len(table)),
    ]  # fmt: skip


def block(z: Tensor, W: Tensor) -> Tensor:
    """phi(z) of eq. 53: two layers with ReLU between."""
    return W[1] @ (W[0] @ z).relu()


def residual_network(z: Tensor, weights: Sequence[Tensor], last: Tensor) -> Tensor:
    """Blocks z + phi(z), and a softmax layer."""
    return (last @ reduce(lambda a, W: a + block(a, W), weights, z)).softmax(0)


def residual_expansion(settings: Settings, _study: Study) -> pd.DataFrame:
    """The Jacobian of residual blocks as a sum over sub-networks (eq. 55), and by autograd, per random network."""
    width = settings.widths[0]
    rows = []
    for network in range(settings.networks):
        weights = [normal(2, width, width, seed=100 * network + layer) / width**0.5 for layer in range(BLOCKS)]
        last = normal(CLASSES, width, seed=100 * network + BLOCKS)
        x = normal(width, seed=100 * network + BLOCKS + 1)
        places = [x]
        for W in weights:
            places.append(places[-1] + block(places[-1], W))
        softmax = torch.func.jacrev(lambda z, last=last: (last @ z).softmax(0))(places[-1])
        J = [torch.func.jacrev(block)(place, W) for place, W in zip(places, weights, strict=False)]
        terms = [sub for length in range(BLOCKS + 1) for sub in combinations(range(BLOCKS), length)]
        expansion = softmax @ sum(chained(J, sub) for sub in terms)
        whole = torch.func.jacrev(residual_network)(x, weights, last)
        # The printed terms of the third block: its own, and J_3 J_2 J_1, J_3 J_2 and J_3 J_1 with some arguments x.
        at_x = [torch.func.jacrev(block)(x, W) for W in weights]
        printed = J[2] + J[2] @ J[1] @ J[0] + J[2] @ at_x[1] + at_x[2] @ J[0]
        third = J[2] @ (torch.eye(width, dtype=torch.float64) + J[1]) @ (torch.eye(width, dtype=torch.float64) + J[0])
        rows.append(
            {
                "network": network,
                "terms": len(terms),
                "of_one_block": sum(len(sub) == 1 for sub in terms),
                "of_all_blocks": sum(len(sub) == BLOCKS for sub in terms),
                "error": difference(expansion, whole),
                "printed_error": difference(printed, third),
            }
        )
    return pd.DataFrame(rows)


def chained(J: Sequence[Tensor], blocks: Sequence[int]) -> Tensor:
    """The product of the Jacobians of some blocks, the last block on the left."""
    return reduce(lambda product, block: J[block] @ product, blocks, torch.eye(len(J[0]), dtype=torch.float64))


PRINTED = "the third block's four terms with the arguments as printed, J_2(x) and J_3(x)"


def residual_rules(table: pd.DataFrame) -> list[Outcome]:
    """Eq. 55, its counts, and the printed line."""
    counts = (table[["terms", "of_one_block", "of_all_blocks"]] - [2**BLOCKS, BLOCKS, 1]).abs().to_numpy().max()
    return [
        exact(
            "the Jacobian is the sum of those of all sub-networks", float(table["error"].max()), tolerance=ALGEBRA,
            problems=len(table), unit="relative difference",
        ),
        exact(f"2^L terms, L of one block, one of L blocks (L = {BLOCKS})", float(counts), tolerance=0),
        exact(
            PRINTED, float(table["printed_error"].max()), tolerance=ALGEBRA, problems=len(table),
            unit="relative difference", beside=True,
        ),
    ]  # fmt: skip


def row_directions(settings: Settings, _study: Study) -> pd.DataFrame:
    """Norms of square layers with orthonormal and with aligned rows, by `fp.weight_norms`, per width and depth."""
    rows = []
    for width in settings.widths:
        for depth in range(1, settings.networks + 1):
            model = fp.models.mlp((width,), widths=(width,) * (depth - 1), classes=width).double().eval()
            for name in ("orthonormal", "aligned"):
                with torch.no_grad():
                    for layer, linear in enumerate(m for m in model if isinstance(m, nn.Linear)):
                        W = normal(width, width, seed=layer)
                        rotation = torch.linalg.qr(W).Q
                        linear.weight.copy_(rotation if name == "orthonormal" else rotation[:1].expand(width, -1))
                found = fp.weight_norms(model, (width,), path=False)
                expected = {"spectral": 1.0 if name == "orthonormal" else width**0.5, "frobenius": width**0.5}
                for norm, value in expected.items():
                    per_layer = float((found.of(norm) / value - 1).abs().max())
                    product = found.product(norm) / value**depth - 1
                    row = {"rows": name, "width": width, "depth": depth, "norm": norm}
                    rows.append(row | {"error": per_layer, "product_error": abs(product)})
    return pd.DataFrame(rows)


def direction_rules(table: pd.DataFrame) -> list[Outcome]:
    """Spectral norm 1 and Frobenius norm sqrt(M), or sqrt(M) for both; their products over L layers."""
    orthonormal, aligned = (table[table["rows"] == name] for name in ("orthonormal", "aligned"))
    return [
        exact(
            f"{name} rows: {values}", float(part[["error", "product_error"]].to_numpy().max()), tolerance=1e-6,
            problems=len(part), unit="relative difference",
        )
        for name, values, part in (
            ("orthonormal", "||W||_2 = 1, ||W||_F = sqrt(M), and their products 1 and M^(L/2)", orthonormal),
            ("aligned", "||W||_2 = ||W||_F = sqrt(M)", aligned),
        )
    ]  # fmt: skip


def slopes(settings: Settings, _study: Study) -> pd.DataFrame:
    """Largest slopes of activations, and spectral norms of the Jacobians of softmax and pooling."""
    x = torch.linspace(-RANGE, RANGE, 2 * settings.samples + 1, dtype=torch.float64)
    activations = {"relu": torch.relu, "sigmoid": torch.sigmoid, "tanh": torch.tanh}
    found = {name: float(torch.func.grad(lambda z, f=f: f(z).sum())(x).max()) for name, f in activations.items()}
    scales = torch.logspace(-1, 1, settings.samples, dtype=torch.float64)
    logits = scales[:, None] * normal(settings.samples, CLASSES, seed=0)
    softmax = torch.vmap(torch.func.jacrev(lambda z: z.softmax(0)))(logits)
    found["softmax"] = float(torch.linalg.matrix_norm(softmax, 2).max())
    pools = {"max": nn.MaxPool2d(POOLING), "average": nn.AvgPool2d(POOLING)}
    pools["down-sampling"] = lambda z: z[..., ::POOLING, ::POOLING]
    image = normal(1, 2 * POOLING, 2 * POOLING, seed=1)
    for name, pool in pools.items():
        J = torch.func.jacrev(lambda z, pool=pool: pool(z).flatten())(image).flatten(1)
        found[f"{name} pooling"] = float(torch.linalg.matrix_norm(J, 2))
    bounds = BOUNDS | dict.fromkeys(set(found) - set(BOUNDS), 1.0)
    return pd.DataFrame([{"function": name, "largest": value, "bound": bounds[name]} for name, value in found.items()])


EQUAL = "the norm of each pooling's Jacobian equals 1, as the proof of Lemma 1 says"


def slope_rules(table: pd.DataFrame) -> list[Outcome]:
    """Table I, reached; Lemma 1, and the equality of its proof."""
    excess, activations = table["largest"] - table["bound"], table["function"].isin(BOUNDS)
    pools = table[table["function"].str.endswith("pooling")]
    return [
        exact(rule, float(error), tolerance=1e-12, problems=problems, beside=beside)
        for rule, error, problems, beside in (
            ("slopes are at most 1 (ReLU), 1/4 (sigmoid) and 1 (tanh)", excess[activations].max(), 3, False),
            ("these bounds are reached", excess[activations].abs().max(), 3, True),
            ("Jacobians of softmax and pooling have spectral norm at most 1", excess[~activations].max(), 4, False),
            (EQUAL, (pools["largest"] - 1).abs().max(), len(pools), True),
        )
    ]  # fmt: skip


NOTHING_CUT = "The source has no experiment on the statement."
REPRODUCTIONS = (
    Reproduction(
        id="S17-Thm5",
        source="Sokolic et al. (2017), Theorem 5",
        claim="Batch normalization with ReLU, without means, biases and scales, is a network of unit rows, apart from "
        "the normalization of the last layer.",
        presets={"quick": Settings(3, (16, 16), 50), "cpu": Settings(20, (64, 64, 64), 500)},
        table=batch_normalised,
        rules=batch_rules,
        differs=NOTHING_CUT,
        cost="1 s",
    ),
    Reproduction(
        id="S17-eq55",
        source="Sokolic et al. (2017), eqs 53 to 55",
        claim="The Jacobian of a residual network is the sum of the Jacobians of all its sub-networks.",
        presets={"quick": Settings(3, (8,), 1), "cpu": Settings(20, (32,), 1)},
        table=residual_expansion,
        rules=residual_rules,
        reasons={
            PRINTED: "The Jacobian of block l is taken at z^(l-1) in every term, whichever blocks the term skips. With "
            "these arguments the same four terms are exact, as the first rule shows."
        },
        differs=NOTHING_CUT,
        cost="1 s",
    ),
    Reproduction(
        id="S17-III-W",
        source="Sokolic et al. (2017), section IV, below eq. 42",
        claim="A square layer with orthonormal rows has spectral norm 1 and Frobenius norm sqrt(M), so that the "
        "product of L layers is 1 or M^(L/2). With aligned rows both norms are sqrt(M).",
        presets={"quick": Settings(3, (16,), 1), "cpu": Settings(5, (16, 64, 256), 1)},
        table=row_directions,
        rules=direction_rules,
        differs=NOTHING_CUT,
        cost="2 s",
    ),
    Reproduction(
        id="S17-T1",
        source="Sokolic et al. (2017), Table I and Lemma 1",
        claim="Slopes of ReLU, sigmoid and tanh are at most 1, 1/4 and 1. Softmax and non-overlapping pooling have "
        "Jacobians of spectral norm at most 1.",
        published=tuple({"function": name, "bound": bound} for name, bound in BOUNDS.items()),
        presets={"quick": Settings(1, (), 500), "cpu": Settings(1, (), 20_000)},
        table=slopes,
        rules=slope_rules,
        reasons={
            EQUAL: "A row of average pooling over k inputs has k entries 1/k, hence norm 1/sqrt(k), not 1. The bound "
            "of the lemma holds; only the equality in its proof fails, by 1/2 for regions of 2 x 2."
        },
        differs=NOTHING_CUT,
        cost="2 s",
    ),
)
