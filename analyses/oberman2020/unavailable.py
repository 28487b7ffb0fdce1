"""Items of Oberman (2020) that are not run, each with its reason."""

from analyses.reproduction import Unavailable

UNAVAILABLE = (
    Unavailable(
        id="O20-F1",
        source="Oberman (2020), Fig. 1",
        claim="The classification map from images to labels on ImageNet.",
        reason="A drawing without a measured quantity; ImageNet is not bundled.",
    ),
    Unavailable(
        id="O20-3.2",
        source="Oberman (2020), section 3.2",
        claim="The typical distance of m uniform points in the unit cube is h = m^(1/d); rates in h are cursed by d.",
        reason="A formula without an experiment, with a slip in the exponent: the distance is of order m^(-1/d).",
    ),
)
