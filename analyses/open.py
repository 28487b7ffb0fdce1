"""Published items that no file of `analyses` holds yet: what they need, or why they cannot be run."""

from functools import partial

from analyses.reproduction import Unavailable

_open = partial(Unavailable, state="open")
N20 = "Thumwanit (2020)"
O20, B19 = "Oberman (2020)", "Bietti et al. (2019)"

OPEN = (
    _open(
        id="N20-T2",
        source=f"{N20}, Table 2",
        claim="On MNIST with 50 to 1,000 samples per class, double backpropagation leads the regularizers.",
        reason="needs a file: 8 regularizers, strengths by validation, balanced training sets",
    ),
    _open(
        id="N20-T3",
        source=f"{N20}, Table 3",
        claim="On CIFAR-10 every regularizer leads the baseline; those with double backpropagation at 1,000 per class.",
        reason="needs a file, as N20-T2",
    ),
    _open(
        id="N20-T4",
        source=f"{N20}, Table 4",
        claim="On a residual network the regularizers with double backpropagation lead by 4 to 10 points.",
        reason="needs a file, as N20-T2; 2.9 s per 1,000 images and epoch on one core",
    ),
    _open(
        id="N20-7.5",
        source=f"{N20}, section 7.5",
        claim="Double backpropagation leads on MNIST, and noise injection leads the others.",
        reason="needs N20-T2 to N20-T4",
    ),
    _open(
        id="N20-ch3,4",
        source=f"{N20}, chapters 3 and 4",
        claim="Ridge, LASSO and support vector machines as baselines.",
        reason="needs a file with scikit-learn's estimators beside the networks",
    ),
    _open(
        id="N20-future",
        source=f"{N20}, future work",
        claim="The same networks under attack.",
        reason="needs the networks of N20-T2",
    ),
    _open(
        id="O20-Ex1.1",
        source=f"{O20}, Ex. 1.1",
        claim="Convolutional networks err on less than 1 % of MNIST, support vector machines on hardly more.",
        reason="needs a file; ten minutes for one network at n = 60,000",
    ),
    _open(
        id="O20-F4",
        source=f"{O20}, Fig. 4",
        claim="The LogBarrier attack finds smaller l-infinity perturbations than iterated FGSM where the latter fails.",
        reason="needs a file: the attacks, and a panel of their images",
    ),
    _open(
        id="O20-F5",
        source=f"{O20}, Fig. 5",
        claim="The LogBarrier attack follows the decision boundary.",
        reason="needs a file: decision regions on the plane through an image and two perturbed ones",
    ),
    _open(
        id="B19-1",
        source=f"{B19}, slides",
        claim="On small data, a lower and an upper bound of the RKHS norm together regularize best.",
        reason="needs a file: a search over two strengths at once, 900 s on one core",
    ),
    _open(
        id="B19-2",
        source=f"{B19}, slides",
        claim="The regularizers help on small data, of images and of proteins.",
        reason="as B19-1; the protein data are not at hand",
    ),
    _open(
        id="B19-3",
        source=f"{B19}, slides",
        claim="The regularizers help against large perturbations.",
        reason="needs the networks of B19-1",
    ),
    _open(
        id="B19-4",
        source=f"{B19}, slides",
        claim="Spectral norms give certified margins.",
        reason="needs the networks of B19-1",
    ),
    Unavailable(
        id="B19-6",
        source=f"{B19}, slides",
        claim="The norm of a convolutional kernel network bounds that of the network.",
        reason="the slides do not give the function omega of the bound",
    ),
)
