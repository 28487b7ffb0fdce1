"""Items of Poggio et al. (2017) that are not run, with the reason."""

from analyses.reproduction import Unavailable

SOURCE = "Poggio et al. (2017)"

UNAVAILABLE = (
    Unavailable(
        id="T3-F18,F25",
        source=f"{SOURCE}, Figs. 18 and 25",
        claim="A binary tree of ReLU units with its path products; the network of the experiments.",
        reason="diagrams without a measured quantity",
    ),
    Unavailable(
        id="T3-c2",
        source=f"{SOURCE}, Conjecture 2: eq. 10",
        claim="SGD with Langevin noise solves the robust problem min max over a perturbation of the weights per "
        "sample.",
        reason="a conjecture under unstated regularity assumptions: neither the size of the perturbations nor the "
        "noise that corresponds to it is given, so that no run can refute it",
    ),
    Unavailable(
        id="T3-eq29-33,64",
        source=f"{SOURCE}, eqs 29 to 33 and 64",
        claim="Deep compositional networks need about 10^(10^4) times fewer samples than shallow ones; a bound for "
        "several tasks.",
        reason="formulas without an experiment, about functions of 1,000 variables and more",
    ),
    Unavailable(
        id="T3-eq46",
        source=f"{SOURCE}, Proposition 2: eq. 46",
        claim="The robust loss under perturbations of the inputs lies between two regularized losses of the path "
        "products.",
        reason="neither the constant c nor the set of perturbations is stated, and no proof is given",
    ),
)
