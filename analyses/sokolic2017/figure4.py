"""Sokolic et al. (2017), Fig. 4 a to d and section VI-A2: weight-normalised MLPs over depth and width, on MNIST."""

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd

from analyses.reproduction import Outcome, Reproduction
from analyses.rules import difference, exact, ratio
from analyses.sokolic2017.weight_normalised import ALL, PRESETS, PROJECTED, ends, monotone, table

DEEP = 4  # layers from which on the smallest score is to be close to sqrt(2); the text says 3 and 4
CLOSE = 1.3  # "close to sqrt(2)": our reading
FULL = 100.0  # per cent
NARROWEST = 784  # the source's smallest M: rules on the depth are judged from there on


def accuracy(frame: pd.DataFrame) -> list[Outcome]:
    """Fig. 4 (a)."""
    own = of_source(frame)
    main = own[own["normalised"] == ALL]
    smallest = (main["L"] == main["L"].min()) & (main["M"] == main["M"].min())
    others = main[~smallest].groupby("draw")["train accuracy"].min()
    return [
        monotone("test accuracy rises with depth", own, "L", "test accuracy"),
        monotone("test accuracy rises with width", frame, "M", "test accuracy"),
        Outcome(
            rule="training accuracy is 100 % but for the smallest network", holds=bool((others == FULL).all()),
            effect=float(others.min()), published=FULL, band=(FULL, FULL), seeds=len(others), unit="%, the lowest",
        ),
        difference("test accuracy, deepest minus shallowest", ends(own, "L", "test accuracy"), unit="points",
                   beside=True),
        difference("test accuracy, widest minus narrowest", ends(frame, "M", "test accuracy"), unit="points",
                   beside=True),
        *elsewhere("test accuracy rises with depth", frame, "test accuracy"),
    ]  # fmt: skip


def scores(frame: pd.DataFrame) -> list[Outcome]:
    """Fig. 4 (b)."""
    own, y = of_source(frame), "smallest score"
    main = own[own["normalised"] == ALL]
    deep = main[main["L"] >= DEEP].groupby("draw")[y].mean()
    close = [
        difference(
            f"the smallest score is close to sqrt(2) for L >= {DEEP}: above {CLOSE}", deep, above=CLOSE,
            published=2**0.5, band=(CLOSE, 2**0.5),
        )
    ] if len(deep) else []  # fmt: skip
    return [
        monotone("the smallest score rises with depth", own, "L", y),
        monotone("the smallest score rises with width", frame, "M", y),
        *close,
        *elsewhere("the smallest score rises with depth", frame, y),
    ]


def training_norms(frame: pd.DataFrame) -> list[Outcome]:
    """Fig. 4 (c); the same for medians and on logits."""
    own, y = of_source(frame), "largest norm, train, softmax"
    rule = "the largest norm on training samples falls with depth"
    return [
        monotone(rule, own, "L", y, rising=False),
        monotone("the largest norm on training samples falls with width", frame, "M", y, rising=False),
        times(f"{rule}: shallowest over deepest", own, y, falling=True),
        *(
            monotone(f"{what}, the {which} norm on training samples falls with depth", own, "L",
                     f"{which} norm, train, {outputs}", rising=False, beside=True)
            for what, which, outputs in (SOFTMAX_MEDIAN, LOGITS_LARGEST, LOGITS_MEDIAN)
        ),
        times("on logits, the largest norm on training samples: deepest over shallowest", own,
              "largest norm, train, logits"),
        *elsewhere(rule, frame, y, rising=False),
    ]  # fmt: skip


def test_norms(frame: pd.DataFrame) -> list[Outcome]:
    """Fig. 4 (d); the same for medians and on logits."""
    own, y = of_source(frame), "largest norm, test, softmax"
    rule = "the largest norm on test samples rises with depth"
    return [
        monotone(rule, own, "L", y),
        monotone("the largest norm on test samples rises with width", frame, "M", y),
        times(f"{rule}: deepest over shallowest", own, y),
        *(
            monotone(f"{what}, the {which} norm on test samples rises with depth", own, "L",
                     f"{which} norm, test, {outputs}", beside=True)
            for what, which, outputs in (SOFTMAX_MEDIAN, LOGITS_LARGEST, LOGITS_MEDIAN)
        ),
        *elsewhere(rule, frame, y),
    ]  # fmt: skip


SOFTMAX_MEDIAN = ("on the softmax", "median", "softmax")
LOGITS_LARGEST = ("on logits", "largest", "logits")
LOGITS_MEDIAN = ("on logits", "median", "logits")


def norms_of_weights(frame: pd.DataFrame) -> list[Outcome]:
    """Section VI-A2: norms of the weights, and bounds that predict the opposite of what is seen."""
    own, every = of_source(frame), frame[frame["normalised"] == ALL]
    main = own[own["normalised"] == ALL]
    logs = np.log(main[[f"product of {name} norms" for name in ("Frobenius", "spectral")]])
    mean = np.exp(logs.div(main["L"], axis=0).groupby(main["draw"]).mean())
    return [
        exact("Frobenius norms of the layers are the square roots of their numbers of rows",
              float(every["distance from sqrt(rows)"].max()), tolerance=1e-5, problems=len(every),
              unit="relative difference"),
        difference("all spectral norms are above 1", main.groupby("draw")["smallest spectral norm"].min(), above=1.0,
                   unit="the smallest"),
        ratio("Frobenius norms are above spectral norms, per layer", *(mean[column] for column in mean)),
        monotone("the product of spectral norms rises with depth", own, "L", "product of spectral norms"),
        *(
            monotone(f"the bound of {name} rises with depth", own, "L", f"log10 bound, {key}")
            for name, key in (("eqs 37 and 38", "eq. 37"), ("eqs 36 and 38", "eq. 36"), ("eq. 44", "eq. 44"))
            if main[f"log10 bound, {key}"].notna().any()  # a margin needs a positive smallest score
        ),
        monotone("while the test accuracy rises with depth", own, "L", "test accuracy"),
    ]  # fmt: skip


def of_source(frame: pd.DataFrame) -> pd.DataFrame:
    """The networks of the source's widths, where there are any."""
    own = frame[frame["M"] >= NARROWEST]
    return own if len(own) else frame


def elsewhere(rule: str, frame: pd.DataFrame, y: str, *, rising: bool = True) -> list[Outcome]:
    """A rule on the depth beside the claim: at another width, and with other normalizations."""
    judged = {*of_source(frame)["M"]}
    found = []
    for (kind, M), part in frame.groupby(["normalised", "M"], sort=False):
        if (kind == ALL and M in judged) or len(set(part["L"])) < len(set(frame["L"])):
            continue
        name = f"{rule}, {'projected to unit rows' if kind == PROJECTED else f'{kind} normalised'}, M = {M}"
        found.append(monotone(name, part, "L", y, rising=rising, normalised=kind, beside=True))
    return found


def times(rule: str, frame: pd.DataFrame, y: str, *, falling: bool = False) -> Outcome:
    """The ratio of y at the two ends of the depths, the geometric mean over the widths, paired over the draws."""
    logs = ends(frame.assign(log=np.log(frame[y])), "L", "log")
    return ratio(rule, np.exp(-logs if falling else logs), np.ones(len(logs)), beside=True)


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
        "784 to 4,704, 3 draws in place of 5, Jacobians at 1,000 test samples. Rules on the depth are judged at a "
        "width of 784, the source's smallest, which was decided after runs of 45 epochs had been seen; those at 196 "
        "stand beside, and rules on the width compare the two. Whether the last layer is normalised is not stated: it "
        "is here. Beside stand, at a width of 196, networks whose hidden layers alone are, and others that are "
        "projected to unit rows after each step. Biases are not normalised; pixels in [0, 1].",
        cost="15 min for the networks and norms that the five items share",
    )


SATURATION = (
    "The norm on logits rises with depth on the same networks and samples where the softmax norm falls: the softmax "
    "saturates. The deeper networks' logits are larger, and the derivative of a softmax near a corner is small. The "
    "fall of Fig. 4 (c) is that of the softmax's derivative, not of the network before it."
)
EXTREME = (
    "The rise is that of the largest of the samples, which lies near a boundary between classes, where the softmax "
    "does not saturate. At the median sample it saturates, as on training samples: on logits both rise."
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
        training_norms,
        {
            f"on logits, the {which} norm on training samples falls with depth": SATURATION
            for which in ("largest", "median")
        },
    ),
    item(
        "F4d", "Fig. 4 (d)",
        "The largest spectral norm of the Jacobian over the test samples rises with depth, and slightly with width.",
        test_norms, {"on the softmax, the median norm on test samples rises with depth": EXTREME},
    ),
    item(
        "VIA2", "section VI-A2",
        "Frobenius norms of the layers are the square roots of their sizes, spectral norms are above 1 and much "
        "smaller. Bounds from products of norms rise with depth, while the error falls.",
        norms_of_weights, {},
    ),
)  # fmt: skip
