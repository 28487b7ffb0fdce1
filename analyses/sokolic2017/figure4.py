"""Sokolic et al. (2017), Fig. 4 a to d and section VI-A2: weight-normalised MLPs over depth and width, on MNIST."""

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd

from analyses.reproduction import Outcome, Reproduction
from analyses.rules import difference, exact, ratio
from analyses.sokolic2017.weight_normalised import ALL, CONTROLS, PRESETS, ends, monotone, table

DEEP = 4  # layers from which on the smallest score is to be close to sqrt(2); the text says 3 and 4
CLOSE = 1.3  # "close to sqrt(2)": our reading
FULL = 100.0  # per cent


def accuracy(frame: pd.DataFrame) -> list[Outcome]:
    """Fig. 4 (a)."""
    main = frame[frame["normalised"] == ALL]
    smallest = (main["L"] == main["L"].min()) & (main["M"] == main["M"].min())
    others = main[~smallest].groupby("draw")["train accuracy"].min()
    return [
        monotone("test accuracy rises with depth", frame, "L", "test accuracy"),
        monotone("test accuracy rises with width", frame, "M", "test accuracy"),
        Outcome(
            rule="training accuracy is 100 % but for the smallest network", holds=bool((others == FULL).all()),
            effect=float(others.min()), published=FULL, band=(FULL, FULL), seeds=len(others), unit="%, the lowest",
        ),
        difference(
            "test accuracy: deepest minus shallowest", ends(frame, "L", "test accuracy"), unit="points", beside=True
        ),
        difference(
            "test accuracy: widest minus narrowest", ends(frame, "M", "test accuracy"), unit="points", beside=True
        ),
        *(
            monotone(f"test accuracy rises with depth, normalization: {kind}", frame, "L", "test accuracy",
                     normalised=kind, beside=True)
            for kind in controls(frame)
        ),
    ]  # fmt: skip


def scores(frame: pd.DataFrame) -> list[Outcome]:
    """Fig. 4 (b)."""
    main = frame[frame["normalised"] == ALL]
    deep = main[main["L"] >= DEEP].groupby("draw")["smallest score"].mean()
    close = [
        difference(
            f"the smallest score is close to sqrt(2) for L >= {DEEP}: above {CLOSE}", deep, above=CLOSE,
            published=2**0.5, band=(CLOSE, 2**0.5),
        )
    ] if len(deep) else []  # fmt: skip
    return [
        monotone("the smallest score rises with depth", frame, "L", "smallest score"),
        monotone("the smallest score rises with width", frame, "M", "smallest score"),
        *close,
        *(
            monotone(f"the smallest score rises with depth, normalization: {kind}", frame, "L", "smallest score",
                     normalised=kind, beside=True)
            for kind in controls(frame)
        ),
    ]  # fmt: skip


def training_norms(frame: pd.DataFrame) -> list[Outcome]:
    """Fig. 4 (c), and the same on logits and for medians."""
    on = "train"
    return [
        monotone("the largest norm on training samples falls with depth", frame, "L", f"largest norm, {on}, softmax",
                 rising=False),
        monotone("the largest norm on training samples falls with width", frame, "M", f"largest norm, {on}, softmax",
                 rising=False),
        monotone("the median norm on training samples falls with depth", frame, "L", f"median norm, {on}, softmax",
                 rising=False, beside=True),
        monotone("on logits, the largest norm on training samples falls with depth", frame, "L",
                 f"largest norm, {on}, logits", rising=False, beside=True),
        monotone("on logits, the median norm on training samples falls with depth", frame, "L",
                 f"median norm, {on}, logits", rising=False, beside=True),
        *(
            monotone(f"the largest norm on training samples falls with depth, normalization: {kind}", frame, "L",
                     f"largest norm, {on}, softmax", rising=False, normalised=kind, beside=True)
            for kind in controls(frame)
        ),
    ]  # fmt: skip


def test_norms(frame: pd.DataFrame) -> list[Outcome]:
    """Fig. 4 (d), and the same on logits and for medians."""
    on = "test"
    return [
        monotone("the largest norm on test samples rises with depth", frame, "L", f"largest norm, {on}, softmax"),
        monotone("the largest norm on test samples rises with width", frame, "M", f"largest norm, {on}, softmax"),
        monotone("the median norm on test samples rises with depth", frame, "L", f"median norm, {on}, softmax",
                 beside=True),
        monotone("on logits, the largest norm on test samples rises with depth", frame, "L",
                 f"largest norm, {on}, logits", beside=True),
        *(
            monotone(f"the largest norm on test samples rises with depth, normalization: {kind}", frame, "L",
                     f"largest norm, {on}, softmax", normalised=kind, beside=True)
            for kind in controls(frame)
        ),
    ]  # fmt: skip


def norms_of_weights(frame: pd.DataFrame) -> list[Outcome]:
    """Section VI-A2: norms of the weights, and bounds that predict the opposite of what is seen."""
    main = frame[frame["normalised"] == ALL]
    by_draw = main.groupby("draw")
    logs = np.log(main[[f"product of {name} norms" for name in ("Frobenius", "spectral")]])
    mean = np.exp(logs.div(main["L"], axis=0).groupby(main["draw"]).mean())
    return [
        exact("Frobenius norms of the layers are the square roots of their numbers of rows",
              float(main["distance from sqrt(rows)"].max()), tolerance=1e-5, problems=len(main),
              unit="relative difference"),
        difference("all spectral norms are above 1", by_draw["smallest spectral norm"].min(), above=1.0,
                   unit="the smallest"),
        ratio("Frobenius norms are above spectral norms, per layer", *(mean[column] for column in mean)),
        monotone("the product of spectral norms rises with depth", frame, "L", "product of spectral norms"),
        *(
            monotone(f"the bound of {name} rises with depth", frame, "L", f"log10 bound, {key}")
            for name, key in (("eqs 37 and 38", "eq. 37"), ("eqs 36 and 38", "eq. 36"), ("eq. 44", "eq. 44"))
            if main[f"log10 bound, {key}"].notna().any()  # a margin needs a positive smallest score
        ),
        monotone("while the test accuracy rises with depth", frame, "L", "test accuracy"),
    ]  # fmt: skip


def controls(frame: pd.DataFrame) -> list[str]:
    """The other normalizations of the table."""
    return [kind for kind in CONTROLS if kind in set(frame["normalised"])]


def item(
    panel: str, where: str, claim: str, rules: Callable[[pd.DataFrame], Sequence[Outcome]], reasons: dict[str, str]
) -> Reproduction:
    """An item on the common table."""
    return Reproduction(
        id=f"S17-{panel}",
        source=f"Sokolic et al. (2017), {where}",
        claim=claim,
        presets=PRESETS,
        table=table,
        rules=rules,
        reasons=reasons,
        differs="The figure prints no numbers. Reduced: n = 1,000 in place of 5,000, widths of 196 and 784 in place of "
        "784 to 4,704, 3 draws in place of 5, 45 epochs in place of 120, Jacobians at 1,000 test samples. Whether the "
        "last layer is normalised is not stated: it is here. Beside stand, at a width of 196, networks whose hidden "
        "layers alone are, and others that are projected to unit rows after each step. Biases are not normalised; "
        "pixels in [0, 1].",
        cost="8 min for the networks and norms that the five items share",
    )


REPRODUCTIONS = (
    item(
        "F4a", "Fig. 4 (a)",
        "The test accuracy of weight-normalised MLPs rises with depth and width, at 100 % training accuracy "
        "(99.6 % for the smallest).",
        accuracy, {},
    ),
    item(
        "F4b", "Fig. 4 (b)",
        "The smallest score of the training samples rises with depth and width, and is close to sqrt(2) for the deeper "
        "networks.",
        scores, {},
    ),
    item(
        "F4c", "Fig. 4 (c)",
        "The largest spectral norm of the Jacobian over the training samples falls with depth and width.",
        training_norms, {},
    ),
    item(
        "F4d", "Fig. 4 (d)",
        "The largest spectral norm of the Jacobian over the test samples rises with depth, and slightly with width.",
        test_norms, {},
    ),
    item(
        "VIA2", "section VI-A2",
        "Frobenius norms of the layers are the square roots of their sizes, spectral norms are above 1 and much "
        "smaller. Bounds from products of norms rise with depth, while the error falls.",
        norms_of_weights, {},
    ),
)  # fmt: skip
