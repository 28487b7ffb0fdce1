"""Works in input space: margins, noise, attacks, Jacobians, a certificate in linf."""

import copy
import sys
from types import ModuleType

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import flatprobe as fp
from flatprobe.network.copies import structural_copy
from tests.benchmarks.peers.contest import HAND, Contest, Subject, Work, library
from tests.benchmarks.smoothing import ALPHA, COHEN_BATCH, SIGMA, cohen

GAMMAS, DRAWS = (0.0, 0.1, 0.2, 0.4), 5
SMOOTHED = {"digits": 32, "MLP": 32, "CNN": 4, "ResNet": 2}
ESTIMATION, SELECTION = 384, 64
BUDGET = {"digits": 0.1, "MLP": 0.1, "CNN": 0.1, "ResNet": 0.004}
ATTACKED, STEPS = {"digits": 512, "MLP": 256, "CNN": 64, "ResNet": 32}, 20
ROWS = {"digits": 1024, "MLP": 1024, "CNN": 64, "ResNet": 16}
BISECTIONS = 12
BOX = (0.0, 1.0)


def margins(s: Subject) -> Contest:
    batches, model = s.laid_out, s.plain

    def by_hand() -> Tensor:
        found = []
        with torch.no_grad():
            for x, y in batches:
                z = model(x)
                own = z.gather(1, y[:, None])
                found.append(own[:, 0] - z.scatter(1, y[:, None], -torch.inf).amax(1))
        return torch.cat(found)

    def check() -> None:
        error = (fp.functional_margins(s.model, s.data).values - by_hand()).abs().max()
        assert error < 1e-3, error

    return Contest(lambda: fp.functional_margins(s.model, s.data), {HAND: by_hand}, check)


def robustness(s: Subject) -> Contest:
    batches, model = s.laid_out, s.plain

    def by_hand() -> Tensor:
        wrong = torch.zeros(len(GAMMAS), DRAWS)
        with torch.no_grad():
            for g, gamma in enumerate(GAMMAS):
                for draw in range(DRAWS):
                    for x, y in batches:
                        wrong[g, draw] += (model(x + gamma * torch.randn_like(x)).argmax(1) != y).sum()
        return wrong / len(s.data)

    def ours() -> Tensor:
        return fp.gaussian_robustness(s.model, s.data, gammas=GAMMAS, draws=DRAWS).error

    def check() -> None:
        difference = (ours().mean(1) - by_hand().mean(1)).abs().max()
        assert difference < 4 / len(s.data) ** 0.5 / 2, difference

    return Contest(ours, {HAND: by_hand}, check, "noisy passes; other noise")


def smoothing(s: Subject) -> Contest:
    s = s.head(SMOOTHED[s.name])

    def ours() -> Tensor:
        settings = {"sigma": SIGMA, "alpha": ALPHA, "draws": ESTIMATION, "selection": SELECTION}
        return fp.smoothed_certificate(s.model, s.data, **settings).radius

    def by_hand() -> Tensor:
        return cohen(s.model, s.data, ESTIMATION, SELECTION, COHEN_BATCH)

    def check() -> None:
        difference = float((ours() - by_hand()).abs().mean())
        assert difference < 0.15 * SIGMA, difference

    return Contest(ours, {"Cohen et al.'s loop": by_hand}, check, "other noise")


def _adversarial_library() -> ModuleType:
    """adv-lib imports torchvision and visdom, of which these attacks use nothing."""
    for name in ("torchvision", "torchvision.models", "visdom"):
        sys.modules.setdefault(name, ModuleType(name))
    vars(sys.modules["torchvision"])["models"] = sys.modules["torchvision.models"]
    import adv_lib.attacks

    return adv_lib.attacks


def fixed(s: Subject, kind: str) -> Contest:
    import foolbox

    s, budget = s.head(ATTACKED[s.name]), BUDGET[s.name]
    bounded = foolbox.PyTorchModel(copy.deepcopy(s.model).requires_grad_(requires_grad=False), bounds=BOX)
    attack = (
        foolbox.attacks.LinfFastGradientAttack()
        if kind == "fgsm"
        else foolbox.attacks.LinfPGD(steps=STEPS, rel_stepsize=2.5 / STEPS)
    )

    def by_foolbox() -> float:
        return 1 - float(attack(bounded, s.inputs, s.labels, epsilons=budget)[2].float().mean())

    def by_adversarial_library() -> float:
        network = bounded._model
        points = _adversarial_library().pgd_linf(
            network, s.inputs, s.labels, budget, steps=STEPS, relative_step_size=2.5 / STEPS
        )
        return float((network(points).argmax(1) == s.labels).float().mean())

    def ours() -> float:
        settings = {"norm": "linf", "attack": kind, "steps": STEPS, "box": BOX}
        return float(fp.adversarial_accuracy(s.model, s.data, budgets=[budget], **settings).correct.double().mean())

    peers: dict[str, Work] = {library("foolbox"): by_foolbox}
    if kind == "pgd":
        peers[library("adv-lib")] = by_adversarial_library

    def check() -> None:
        for peer in peers.values():
            assert abs(ours() - peer()) < 0.04, (ours(), peer())

    return Contest(ours, peers, check, "" if kind == "fgsm" else f"{STEPS} steps; ours on the samples still right")


def ddn(s: Subject) -> Contest:
    import foolbox

    s, steps = s.head(ATTACKED[s.name]), 50
    frozen = copy.deepcopy(s.model).requires_grad_(requires_grad=False)
    bounded = foolbox.PyTorchModel(frozen, bounds=BOX)
    attack = foolbox.attacks.DDNAttack(steps=steps)
    right = frozen(s.inputs).argmax(1) == s.labels

    def ours() -> Tensor:
        return fp.geometric_margins(s.model, s.data, lower=(), upper=("ddn",), box=BOX, steps=steps).upper

    peers: dict[str, Work] = {
        library("foolbox"): lambda: attack.run(bounded, s.inputs, s.labels),
        library("adv-lib"): lambda: _adversarial_library().ddn(frozen, s.inputs, s.labels, steps=steps, levels=None),
    }

    def check() -> str:
        medians = [float(ours()[right].median())]
        medians += [float((peer() - s.inputs).flatten(1).norm(dim=1)[right].median()) for peer in peers.values()]
        assert medians[0] < 1.05 * min(medians), medians
        words = [f"{value:.3f}" for value in medians]
        return f"median distance {words[0]} (flatprobe), {words[1]} (foolbox), {words[2]} (adv-lib)"

    return Contest(ours, peers, check, "50 steps; ours bisects to the boundary at the end")


def jacobian(s: Subject) -> Contest:
    s = s.head(ROWS[s.name])
    frozen = structural_copy(s.model).requires_grad_(requires_grad=False)  # else a graph in the weights is recorded
    jacobians = torch.func.vmap(torch.func.jacrev(lambda x: frozen(x[None])[0]))
    batches = s.inputs.split(s.size)

    def by_svd() -> Tensor:
        return torch.cat([torch.linalg.svdvals(jacobians(x).flatten(2))[:, 0] for x in batches])

    def by_gram() -> Tensor:
        matrices = (jacobians(x).flatten(2) for x in batches)
        return torch.cat([torch.linalg.eigvalsh(J @ J.mT)[:, -1].sqrt() for J in matrices])

    def ours() -> Tensor:
        return fp.jacobian_norms(s.model, s.data).values

    peers = {"vmap(jacrev) and SVD": by_svd, "vmap(jacrev) and float32 Gram": by_gram}

    def check() -> None:
        for peer in peers.values():
            error = ((ours() - peer()).abs() / ours()).median()
            assert error < 1e-4, error

    return Contest(ours, peers, check, "ours forms the Gram matrix in float64")


def certificate(s: Subject) -> Contest:
    """Interval bounds by hand, bisected over the budget; the last layer's differences are not merged."""
    s = s.head(ATTACKED[s.name])
    layers = [layer for layer in s.model.modules() if not list(layer.children())]
    spreads = copy.deepcopy(layers)
    for layer in spreads:
        if isinstance(layer, nn.Linear | nn.Conv2d):
            layer.weight.data.abs_()
            layer.bias.data.zero_()

    def standing(budget: Tensor) -> Tensor:
        reach = budget.view(-1, 1, 1, 1)
        low, high = s.inputs - reach, s.inputs + reach
        for layer, spread in zip(layers, spreads, strict=True):
            if isinstance(layer, nn.Linear | nn.Conv2d):
                middle, radius = layer((low + high) / 2), spread((high - low) / 2)
                low, high = middle - radius, middle + radius
            else:  # increasing in its inputs
                low, high = layer(low), layer(high)
        own = F.one_hot(s.labels, low.shape[1]).bool()
        return low[own] > high.masked_fill(own, -torch.inf).amax(1)

    def by_hand() -> Tensor:
        low, high = torch.zeros(len(s.data)), torch.full((len(s.data),), 0.5)
        with torch.no_grad():
            for _ in range(BISECTIONS):
                middle = (low + high) / 2
                inside = standing(middle)
                low, high = middle.where(inside, low), high.where(inside, middle)
        return low

    def ours() -> Tensor:
        return fp.geometric_margins(s.model, s.data, upper="ifgsm", steps=1, norm="linf").lower

    def check() -> str:
        upper = fp.geometric_margins(s.model, s.data, lower=(), upper=("deepfool",), norm="linf").upper
        for bound in (ours(), by_hand()):
            assert bool((bound <= upper + 1e-6).all())
        medians = f"{float(ours().median()):.2g} (flatprobe), {float(by_hand().median()):.2g} (intervals)"
        return f"median bound {medians}"

    return Contest(ours, {"intervals by hand": by_hand}, check, "another bound; ours takes a step of an attack too")
