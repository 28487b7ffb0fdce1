"""Poggio et al. (2017), Figs 19 and 20: training images under Gaussian noise, for natural and random labels."""

from dataclasses import dataclass

import pandas as pd
import torch

import flatprobe as fp
from analyses.reproduction import Outcome, Reproduction
from analyses.rules import difference, exact
from analyses.study import Study
from analyses.theory3_2017 import family

SHOWN = (0.05, 0.2)  # standard deviations of Fig. 19, in units of the pixel range
GAMMAS = (0.0, 0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5)  # not stated but for those of Fig. 19
DRAWS = 3  # noise draws per sample; not stated
SLIGHTLY = 0.1  # error; our reading of "slightly worse"


def table(both: family.Both, study: Study) -> pd.DataFrame:
    """One row per network, stage and noise level: E(gamma), mean over the noise draws."""
    stages = (family.INTERPOLATED, family.EQUAL_LOSS)
    arguments = {"gammas": GAMMAS, "draws": DRAWS}
    found = both.sweep(
        study, [fp.Measurement("gaussian_robustness", stage=s, name=s, arguments=arguments) for s in stages]
    )
    keys = ["data", "labels", "scale", "draw", "stage", "gamma"]
    return pd.concat(found.values()).groupby(keys)["error"].mean().reset_index()


def rules(frame: pd.DataFrame) -> list[Outcome]:
    """Larger error for random labels at each noise level, and by how much."""
    found = []
    for (data, scale, stage), part in frame.groupby(["data", "scale", "stage"]):
        beside = (data, scale, stage) != ("cifar", 1, family.INTERPOLATED)
        at = f"{family.NAMES[data]}, x{scale}, {stage}"
        for gamma in (*SHOWN[:1], 0.1, *SHOWN[1:], 0.5):
            natural, random = family.pairs(part, "error", gamma=gamma)
            rule = f"error of random - natural labels at gamma {gamma:g}: {at}"
            found.append(difference(rule, random - natural, beside=beside or gamma not in SHOWN))
            if gamma in SHOWN:
                rule = f"only slightly, by less than {SLIGHTLY:g} at gamma {gamma:g}, by this margin: {at}"
                found.append(difference(rule, SLIGHTLY - (random - natural), beside=beside))
    clean = frame[(frame["gamma"] == 0) & (frame["data"] == "cifar")]["error"]
    return [exact("no error without noise", clean.max(), tolerance=0.0, problems=len(clean)), *found]


@dataclass(frozen=True, kw_only=True)
class Picture:
    """Data set, crop and place of the image."""

    data: str
    crop: int | None
    place: int = 0


def pixels(preset: Picture, _study: Study) -> pd.DataFrame:
    """One row per noise level, channel, row and column of the image; the noise is not clipped."""
    crop = {} if preset.crop is None else {"crop": preset.crop}
    image = next(iter(fp.load_data(preset.data, split="train", limit=preset.place + 1, **crop).batches(1))).inputs[0]
    noise = torch.randn(image.shape, generator=torch.Generator().manual_seed(0))
    index = pd.MultiIndex.from_product([range(length) for length in image.shape], names=["channel", "row", "column"])
    parts = [
        pd.DataFrame({"gamma": gamma, "value": (image + gamma * noise).flatten().numpy()}, index=index).reset_index()
        for gamma in (0.0, *SHOWN)
    ]
    return pd.concat(parts, ignore_index=True)


def pixel_rules(frame: pd.DataFrame) -> list[Outcome]:
    """The standard deviation of the noise that is shown."""
    clean = frame[frame["gamma"] == 0]["value"].to_numpy()
    found = []
    for gamma in SHOWN:
        added = frame[frame["gamma"] == gamma]["value"].to_numpy() - clean
        errors = 4 / (2 * len(added)) ** 0.5  # four standard errors of a standard deviation
        rule = f"the noise has standard deviation {gamma:g}, within 4 standard errors"
        found.append(exact(rule, abs(added.std() / gamma - 1), tolerance=errors, problems=len(added)))
    return found


FIGURE19 = Reproduction(
    id="T3-F19",
    source="Poggio et al. (2017), Fig. 19",
    claim="An image of the CIFAR-10 training set, and its perturbed versions with Gaussian noise of size 0.05 and 0.2.",
    published=[{"gamma": gamma} for gamma in SHOWN],
    presets={
        "quick": Picture(data="digits", crop=None),
        "cpu": Picture(data="uoft-cs/cifar10", crop=28),
        "paper": Picture(data="uoft-cs/cifar10", crop=None),
    },
    table=pixels,
    rules=pixel_rules,
    differs=f"{family.JPEG} The source does not say which image it shows; here the first one.",
    at_scale=("cpu", "paper"),
    cost="1 s",
)
FIGURE20 = Reproduction(
    id="T3-F20",
    source="Poggio et al. (2017), Fig. 20",
    claim=(
        "On training images of CIFAR-10 with Gaussian noise, a network trained on random labels has slightly worse "
        "robustness than one trained on natural labels; without noise neither has an error."
    ),
    presets=family.BOTH,
    table=table,
    rules=rules,
    differs=f"{family.CUT} {family.JPEG} Noise levels, draws and clipping are not stated; the noise is not clipped.",
    cost="4 min, of which all but seconds for networks that other items share",
)
REPRODUCTIONS = (FIGURE19, FIGURE20)
