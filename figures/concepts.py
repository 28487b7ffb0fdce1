"""Pictures of the docs' Concepts pages: probes for natural and random labels.

    python -m figures.concepts

trains the networks, measures them and writes figures/out/concepts/*.png, in about a minute on one core.
"""

import argparse
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import matplotlib as mpl
import torch
from matplotlib.figure import Figure

import flatprobe as fp
from flatprobe.plotting import canvas, draw, triangle
from flatprobe.plotting.names import COLOURS

ROOT = Path(__file__).parents[1]
SAMPLES = 300
WIDTHS = (64,)
TRAINING: dict[str, Any] = {
    "until": "loss", "target_loss": 0.05, "epochs": 500, "batch_size": SAMPLES, "optimizer": "adam",
    "learning_rate": 0.02,
}  # fmt: skip
BUDGETS = (0.0, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 1.25, 1.5)  # l2, pixels in [0, 1]
FACTORS = (1, 2, 4, 16, 64)  # of the audit's rescaling
RESOLUTION = 110  # dots per inch, which keeps each picture below 60 kB


def digits() -> dict[str, fp.LabelledData]:
    """The same 300 digits under their own labels and under labels drawn at random."""
    natural = fp.load_data("digits", split="train", limit=SAMPLES)
    return {"natural labels": natural, "random labels": natural.with_random_labels()}


def trained(data: fp.LabelledData, seed: int = 0) -> Any:
    """An MLP trained on the data to a training loss of 0.05, in eval mode."""
    return fp.train(fp.models.mlp(data.input_shape, widths=WIDTHS, seed=seed), data, seed=seed, **TRAINING).model


@canvas.drawing()
def stack(panels: Iterable[tuple[str, Any]], *, height: float = 2.2) -> Figure:
    """Panels one above the other, each a title and results; a single one is the picture of the results itself."""
    panels = list(panels)
    groups = [dict(zip(own, own, strict=True)) if isinstance(own, dict) else None for _, own in panels]
    if len(panels) == 1:
        return canvas.figure_of(draw(panels[0][1], groups=groups[0]))
    figure = canvas.blank(canvas.WIDTH, height * len(panels))
    for place, (title, results) in enumerate(panels, start=1):
        axes = figure.add_subplot(len(panels), 1, place)
        draw(results, axes, groups=groups[place - 1])
        axes.set_title(title, loc="left")
    return figure


def pictures() -> dict[str, Figure]:
    """Name of the page -> its picture."""
    data = digits()
    models = {name: trained(own) for name, own in data.items()}

    def of_risk(probe: Callable[..., Any], **options: Any) -> dict[str, Any]:
        return {name: probe(fp.EmpiricalRisk(models[name], own), **options) for name, own in data.items()}

    def of_model(probe: Callable[..., Any], **options: Any) -> dict[str, Any]:
        return {name: probe(models[name], own, **options) for name, own in data.items()}

    natural = data["natural labels"]
    cnn = fp.train(fp.models.sokolic_cnn(natural.input_shape), natural, **TRAINING).model
    return {
        "flatness-radius": stack(
            (f"{law} directions", of_risk(fp.flatness_radius, law=law)) for law in ("isotropic", "adaptive")
        ),
        "landscapes": triangle.draw_row(
            {
                name: fp.interpolate(
                    fp.EmpiricalRisk(models[name], own), [trained(own, seed) for seed in range(3)], fp.simplex(3)
                )
                for name, own in data.items()
            }
        ),
        "random-slices": stack([("", of_risk(fp.random_slice, dimensions=1))]),
        "curvature": stack(
            [
                ("five largest eigenvalues", of_risk(fp.hessian_eigenvalues, count=5)),
                ("trace", of_risk(fp.hessian_trace)),
            ]
        ),
        "worst-case-sharpness": stack(
            [
                (f"ball of radius {radius}, {law}", of_risk(fp.worst_case_sharpness, law=law))
                for law, radius in (("l2", 0.05), ("adaptive", 0.5))
            ]
        ),
        "gradient-noise": stack([("", of_risk(fp.gradient_noise, batch_size=32))]),
        "weight-norms": stack([("", fp.weight_norms(cnn, natural.input_shape))]),
        "functional-margins": stack(
            [
                ("functional margins", of_model(fp.functional_margins)),
                ("scores", of_model(fp.scores)),
            ],
            height=3.0,
        ),
        "geometric-margins": stack([("", of_model(fp.geometric_margins))]),
        "decision-regions": regions(models["natural labels"], natural),
        "jacobian-norms": stack([("", of_model(fp.jacobian_norms))]),
        "gaussian-robustness": stack([("", of_model(fp.gaussian_robustness))]),
        "adversarial-accuracy": stack([("", of_model(fp.adversarial_accuracy, budgets=BUDGETS))]),
        "smoothed-certificate": stack([("", of_model(fp.smoothed_certificate))]),
        "generalization-bounds": bounded(fp.models.mlp(natural.input_shape, widths=WIDTHS), natural),
        "audit": rescaled(models["natural labels"], natural),
    }


def regions(model: Any, data: fp.LabelledData) -> Figure:
    """The plane through the first digit that l2 and linf attacks turn into two classes, and both its points."""
    found = [fp.adversarial_points(model, data.head(50), norm=norm, box=(0, 1)) for norm in ("l2", "linf")]
    k = next(k for k in range(50) if len({int(data.labels[k]), *(int(own.predicted[k]) for own in found)}) == 3)
    points = torch.stack([data.inputs[k].to(found[0].points), *(own.points[k] for own in found)])
    names = ("the input", "nearest point, l2", "nearest point, linf")
    figure = draw(fp.decision_regions(model, points, extent=1.0), names=names).get_figure(root=True)
    assert isinstance(figure, Figure)
    return figure


def bounded(network: Any, data: fp.LabelledData) -> Figure:
    """Four bounds of one network that fits its training data."""
    model = fp.train(network, data, **{**TRAINING, "until": "interpolation", "target_loss": None}).model
    samples, layers = len(data), fp.weight_norms(model, data.input_shape)
    margin, prior = fp.bounds.dyadic(float(fp.geometric_margins(model, data, upper="ddn").lower.min()))
    covering = fp.bounds.manifold(constant=1.0, dimension=5)  # assumed, as every covering is
    found = {
        "held-out data": fp.bounds.held_out(model, fp.load_data("digits", split="test")),
        "robustness, margin": fp.bounds.robustness(
            samples=samples, empirical=0.0, margin=margin, prior=prior, classes=10, covering=covering
        ),
        "bits": fp.bounds.network_bits(model, data),
        "Frobenius norms": fp.bounds.frobenius(samples=samples, empirical=0.0, norms=layers.of("frobenius").tolist()),
    }
    figure = draw(found).get_figure(root=True)
    assert isinstance(figure, Figure)
    return figure


@mpl.rc_context(canvas.STYLE)
def rescaled(model: Any, data: fp.LabelledData) -> Figure:
    """The radius under two laws while ReLU units are rescaled and the function stays."""
    figure = canvas.blank(6, 3.3)
    axes = figure.add_subplot()
    for probe, law in (("flatness_radius", "isotropic"), ("flatness_radius_adaptive", "adaptive")):
        relative = [1.0]
        for factor in FACTORS[1:]:
            found = fp.audit(model, data, probes=[probe], factor=factor).to_frame()
            cell = found[found["change"] == "rescaling"].iloc[0]
            relative.append(cell["after"] / cell["before"])
        axes.plot(FACTORS, relative, marker="o", color=COLOURS[law == "adaptive"], label=f"{law} directions")
    axes.set(xscale="log", yscale="log", xlabel="factor on every second ReLU unit", ylabel="radius / radius as given")
    axes.set_xticks(FACTORS, list(map(str, FACTORS)))
    axes.minorticks_off()
    axes.legend()
    return figure


def main(arguments: list[str] | None = None) -> Path:
    """Draw every picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "figures" / "out" / "concepts")
    folder: Path = parser.parse_args(arguments).out
    folder.mkdir(parents=True, exist_ok=True)
    for name, figure in pictures().items():
        (folder / f"{name}.png").write_bytes(canvas.png(figure, resolution=RESOLUTION))
    print(folder)
    return folder


if __name__ == "__main__":
    main()
