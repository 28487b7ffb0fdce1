"""Items of S17 that are not run, with the reason; those that need a GPU are open."""

from analyses.reproduction import Unavailable

UNAVAILABLE = (
    Unavailable(
        id="S17-F1",
        source="Sokolic et al. (2017), Fig. 1",
        claim="A network transforms the input vector into the feature vector by a series of transforms.",
        reason="a diagram",
    ),
    Unavailable(
        id="S17-eq32",
        source="Sokolic et al. (2017), eq. 32",
        claim="The Fisher information about the size of an input perturbation is small where the Jacobian is small.",
        reason="an argument for one input and one output. It needs the density of f(x + theta n), which the source "
        "does not give, and states no number",
    ),
    Unavailable(
        id="S17-T2-LaRED",
        source="Sokolic et al. (2017), Table II, LaRED columns",
        claim="The Jacobian regularizer is ahead of weight decay on images of hand gestures, of the same and of other "
        "subjects, at 2,000 to 50,000 training samples.",
        reason="no data: LaRED (Hsiao et al. 2014) is not to be had. The MNIST column is S17-T2",
    ),
    Unavailable(
        id="S17-T3",
        source="Sokolic et al. (2017), Table III",
        claim="On CIFAR-10 an All-CNN-C with batch normalization gains 5.29, 4.22 and 1.51 points by the Jacobian "
        "regularizer at 2,500, 10,000 and 50,000 training samples.",
        reason="needs a GPU: the network costs 41 s per 1,000 samples and epoch on one core, so that 2,500 samples and "
        "75 epochs take 2 h plain and 4 h regularized per repetition. A network of a third of the filters on 500 "
        "samples would say nothing of the table",
        state="open",
    ),
    Unavailable(
        id="S17-T4",
        source="Sokolic et al. (2017), Table IV",
        claim="On CIFAR-10 a wide residual network of 22 layers gains 7.10, 6.91 and 0.98 points by the per-layer "
        "Jacobian regularizer at 2,500, 10,000 and 50,000 training samples.",
        reason="needs a GPU: the network costs 250 s per 1,000 samples and epoch on one core, and trains for 125 "
        "epochs",
        state="open",
    ),
    Unavailable(
        id="S17-T5,F5",
        source="Sokolic et al. (2017), Table V and Fig. 5",
        claim="On ImageNet the per-layer Jacobian regularizer lowers a ResNet-18's generalization error from 61.53 to "
        "23.83 points, and from 13.14 to 12.03 with augmented data.",
        reason="no data: ImageNet is not to be had here, and 90 epochs of it need several GPUs",
    ),
)
