"""Works in weight space: the risk, radii, slices, planes, noise of gradients, curvature, directions."""

import contextlib
import copy
import io
import itertools
import math

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import flatprobe as fp
from flatprobe.probes.gradient_noise import GradientNoise
from flatprobe.risk.directions import direction
from flatprobe.utils import rng
from tests.benchmarks.peers.contest import HAND, Contest, Subject, close, cross_entropy, library, network

LINE, EXTENT, STEPS = 11, 0.5, 4
DRAWS = 10
MINIBATCH = {"digits": 32, "MLP": 32, "CNN": 32, "ResNet": 32, "ViT-B": 4}


def creation(s: Subject) -> Contest:
    """On one batch, since creation checks the first one only."""
    s = s.head(s.size)
    batches, plain = s.laid_out, s.plain
    return Contest(
        lambda: fp.EmpiricalRisk(s.model, s.data),
        {HAND: lambda: cross_entropy(plain, batches)},
        lambda: close(s.risk()().loss, cross_entropy(plain, batches), 1e-4),
        "one forward pass; ours checks the network and the batch",
    )


def radius(s: Subject) -> Contest:
    """A direction beside its evaluations by hand, weights moved in place."""
    risk, batches, plain = s.risk(), s.laid_out, s.plain
    u = direction(risk.center, tuple(risk.center), "isotropic", 0, 0)
    searched = {"count": 1, "radius": 1.0}  # the search's, after `check`

    def increase(r: float) -> float:
        moved = dict(plain.named_parameters())
        with torch.no_grad():
            for name, part in u.items():
                moved[name].add_(part, alpha=r)
            loss = cross_entropy(plain, batches)
            for name, part in u.items():
                moved[name].sub_(part, alpha=r)
        return loss

    def check() -> str:
        result = fp.flatness_radius(risk, directions=1)
        searched.update(count=int(result.evaluations[0]), radius=float(result.radii[0]))
        close(abs(increase(searched["radius"]) - risk().loss), 0.05, 0.1)
        return f"{searched['count']} evaluations"

    return Contest(
        lambda: fp.flatness_radius(risk, directions=1),
        {HAND: lambda: [increase(searched["radius"]) for _ in range(searched["count"])]},
        check,
        "the bare evaluations; no search",
    )


def draw(s: Subject) -> Contest:
    risk = s.risk()
    keys = itertools.count()

    def by_hand() -> dict[str, Tensor]:
        noise = {name: torch.randn_like(w) for name, w in risk.center.items()}
        length = math.sqrt(sum(float(part.square().sum()) for part in noise.values()))
        return {name: part.div_(length) for name, part in noise.items()}

    def ours() -> dict[str, Tensor]:
        return direction(risk.center, tuple(risk.center), "isotropic", 0, next(keys))

    def check() -> None:
        for u in (ours(), by_hand()):
            close(math.sqrt(sum(float(part.double().square().sum()) for part in u.values())), 1.0, 1e-4)

    return Contest(ours, {HAND: by_hand}, check)


def line(s: Subject) -> Contest:
    from loss_landscapes import metrics, random_line

    risk = s.risk()
    metric = metrics.Loss(F.cross_entropy, s.inputs, s.labels)
    return Contest(
        lambda: fp.random_slice(risk, dimensions=1, steps=LINE),
        {
            library("loss-landscapes"): lambda: random_line(s.model, metric, 1, LINE, deepcopy_model=True),
            library("landscaper"): lambda: landscaper(s),
        },
        lambda: _check_landscaper(s, risk),
        "other random directions; ours counts errors too, and evaluates the center once more",
    )


def landscaper(s: Subject, direction: list[Tensor] | None = None) -> np.ndarray:
    """Landscaper moves the weights of its model and restores them."""
    from landscaper.compute import compute_loss_landscape

    def loss(model: nn.Module, data: tuple[Tensor, Tensor]) -> float:
        return float(F.cross_entropy(model(data[0]), data[1]))

    drawn = [direction or [torch.randn_like(w) for w in s.model.parameters()]]
    settings = {"steps": LINE, "distance": EXTENT, "dim": 1, "device": "cpu"}
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        return compute_loss_landscape(copy.deepcopy(s.model), (s.inputs, s.labels), drawn, loss, **settings)[0]


def _check_landscaper(s: Subject, risk: fp.EmpiricalRisk) -> None:
    """Along Landscaper's own normalized direction; it adds noise to the largest value of its grid."""
    noise = {name: torch.randn_like(w) for name, w in s.model.named_parameters()}
    values = landscaper(s, list(noise.values()))
    unit = {name: part * math.sqrt(part.numel()) / part.norm() for name, part in noise.items()}
    lengths = [math.sqrt(sum(float(v.double().square().sum()) for v in w.values())) for w in (risk.center, unit)]
    step = EXTENT / (LINE / 2) * lengths[0] / lengths[1]
    own = risk.along([risk.center, {name: part.detach() for name, part in unit.items()}])
    for k in np.argsort(values)[:-1]:
        close(own((1.0, step * float(k - LINE // 2))).loss, values[k], 1e-3)


def three_points(s: Subject) -> Contest:
    """loss-landscapes walks a snake over the plane: odd rows are one step behind the even ones."""
    from loss_landscapes import metrics, planar_interpolation

    models = [network(s.name, seed) for seed in range(3)]
    risk = fp.EmpiricalRisk(models[0], s.data)
    metric = metrics.Loss(F.cross_entropy, s.inputs, s.labels)
    places = [(i / STEPS, (j + 1 - i % 2) / STEPS) for i in range(STEPS) for j in range(STEPS)]
    points = torch.tensor([[1 - a - b, a, b] for a, b in places], dtype=torch.float64)
    policy = "interpolate" if risk.network.batch_normalised else None

    def ours() -> Tensor:
        return fp.interpolate(risk, models, points, batch_norm=policy).loss

    def peer() -> np.ndarray:
        return planar_interpolation(*models, metric, steps=STEPS, deepcopy_model=True)

    def check() -> None:
        for own, other in zip(ours().tolist(), peer().flatten().tolist(), strict=True):
            close(own, other, 1e-3)

    return Contest(ours, {library("loss-landscapes"): peer}, check, "ours counts errors too")


def noise(s: Subject) -> Contest:
    risk, model, batches, size = s.risk(), s.plain, s.laid_out, MINIBATCH[s.name]

    def gradient(inputs: Tensor, labels: Tensor) -> Tensor:
        parts = torch.autograd.grad(F.cross_entropy(model(inputs), labels), list(model.parameters()))
        return torch.cat([part.flatten() for part in parts])

    def by_hand() -> tuple[float, float]:
        full = sum(gradient(x, y) * len(y) for x, y in batches) / len(s.data)
        lengths, kept = [], []
        for key in range(DRAWS):
            positions = rng.permutation(len(s.data), 0, "minibatch", key)[:size]
            xi = gradient(s.inputs[positions], s.labels[positions]) - full
            kept.append(xi[:64])
            lengths.append(float(xi.square().sum()))
        length = torch.linalg.vector_norm(full, dtype=torch.float64)  # in float32 it is 1 % off on the ViT-B
        return float(length), sum(lengths) / DRAWS

    def ours() -> GradientNoise:
        return fp.gradient_noise(risk, batch_size=size, draws=DRAWS)

    def check() -> None:
        own, (length, squared) = ours(), by_hand()
        close(own.gradient_norm, length, 1e-3)
        close(float(own.squared_lengths.mean()), squared, 0.4)

    return Contest(ours, {HAND: by_hand}, check, "gradients of the data and of 10 minibatches")


def _pyhessian(s: Subject, figure: str, **arguments: object) -> list[float]:
    """A figure of PyHessian, which keeps the graph of its gradients where it has one batch."""
    from pyhessian import hessian

    model, batches = copy.deepcopy(s.model), s.batches
    source = {"data": batches[0]} if len(batches) == 1 else {"dataloader": batches}
    found = getattr(hessian(model, nn.CrossEntropyLoss(), cuda=False, **source), figure)(**arguments)
    model.zero_grad(set_to_none=True)  # the graph in them holds the model
    return found


def eigenvalue(s: Subject) -> Contest:
    from curvlinops import HessianLinearOperator
    from hessian_eigenthings.algorithms.lanczos import lanczos
    from hessian_eigenthings.operators import HessianOperator
    from scipy.sparse.linalg import eigsh

    s = s.head(len(s.data) // s.size * s.size or len(s.data))  # hessian-eigenthings takes every batch for equally large
    risk, model, tolerance = s.risk(), copy.deepcopy(s.model), 1e-3

    def eigenthings() -> float:
        operator = HessianOperator(
            model, s.batches, lambda network, batch: F.cross_entropy(network(batch[0]), batch[1])
        )
        return float(lanczos(operator, k=1, max_iter=15, tol=tolerance, which="LA").eigenvalues[0])

    def curvlinops() -> float:
        operator = HessianLinearOperator(model, nn.CrossEntropyLoss(), list(model.parameters()), s.batches)
        return float(eigsh(operator.to_scipy(), k=1, which="LA", tol=tolerance, ncv=12)[0][0])

    peers = {
        library("pyhessian"): lambda: _pyhessian(s, "eigenvalues", tol=tolerance)[0][0],
        library("hessian-eigenthings"): eigenthings,
        library("curvlinops-for-pytorch"): curvlinops,
    }

    def ours() -> float:
        return float(fp.hessian_eigenvalues(risk, tolerance=tolerance).eigenvalues[0])

    def check() -> str:
        own, others = ours(), {name: peer() for name, peer in peers.items()}
        assert all(value < 1.001 * own for value in others.values()), (own, others)  # none has found a larger one
        return ", ".join(f"{value:.4g} ({name.split()[0]})" for name, value in ({"flatprobe": own} | others).items())

    return Contest(ours, peers, check, "tolerance 1e-3 by each one's own rule")


def one_batch(s: Subject) -> Contest:
    return eigenvalue(s.head(s.size // 2))


def trace(s: Subject) -> Contest:
    risk = s.risk()

    def pyhessian() -> list[float]:
        return _pyhessian(s, "trace", maxIter=DRAWS, tol=0.0)

    def check() -> None:
        own, other = fp.hessian_trace(risk, draws=DRAWS), np.array(pyhessian())
        error = math.hypot(own.standard_error, other.std(ddof=1) / math.sqrt(DRAWS))
        assert abs(own.trace - other.mean()) < 5 * error, (own.trace, other.mean(), error)

    return Contest(lambda: fp.hessian_trace(risk, draws=DRAWS), {library("pyhessian"): pyhessian}, check, "10 draws")


def product(s: Subject) -> Contest:
    from curvlinops import HessianLinearOperator

    risk, model = s.risk(), copy.deepcopy(s.model)
    v = {name: torch.randn_like(w) for name, w in risk.center.items()}
    flat = torch.cat([part.flatten() for part in v.values()])
    operator = HessianLinearOperator(
        model, nn.CrossEntropyLoss(), list(model.parameters()), s.batches, check_deterministic=False
    )

    def check() -> None:
        own = torch.cat([part.flatten() for part in risk.hvp(None, v).values()])
        error = float((own - operator @ flat).norm() / own.norm())
        assert error < 1e-3, error

    return Contest(lambda: risk.hvp(None, v), {library("curvlinops-for-pytorch"): lambda: operator @ flat}, check)
