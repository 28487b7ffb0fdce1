"""Residual networks with BatchNorm for CIFAR-like images."""

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor, nn

from flatprobe.models.recipes import Modules, assemble, class_count, image_shape


class Residual(nn.Module):
    """x -> shortcut(x) + body(x).

    Args:
        body: the layers of the block.
        shortcut: the identity, or a projection to the body's output shape.
    """

    def __init__(self, body: nn.Module, shortcut: nn.Module) -> None:
        super().__init__()
        self.body = body
        self.shortcut = shortcut

    def forward(self, x: Float[Tensor, "samples *shape"]) -> Float[Tensor, "samples *output"]:
        """The sum of both paths."""
        total: Tensor = self.shortcut(x) + self.body(x)
        return total


def resnet(
    input_shape: Sequence[int], *, depth: int = 22, width: int = 16, classes: int = 10, seed: int = 0
) -> nn.Sequential:
    """ResNet with BatchNorm for small images.

    3x3 convolution, three stages of (depth - 4) / 6 residual blocks, average pool over the map, linear.

    A block is conv-BN-ReLU-conv-BN plus its shortcut, then a ReLU; all convolutions are 3x3, padded by 1,
    without bias. The second and third stage halve the map and double the width in their first block, whose
    shortcut is a 1x1 convolution with BatchNorm (He et al.'s option B); all other shortcuts are the identity.
    `depth` counts every layer with a weight matrix, the two projections included, as Zagoruyko and Komodakis
    do: the default, 22, has the main path of He et al.'s ResNet-20.

    Args:
        input_shape: (channels, height, width), any size.
        depth: 6 n + 4 for n blocks per stage; 22 is the depth of S17's ResNet (section VI-C1), which is wide
            (`wide_resnet`). N20's ResNet (section 7.1.2) has one shortcut connection each of 16, 32 and 64 filters, and
            `depth=10` here; the paper gives neither the convolutions per block nor the layer before the first block.
        width: filters of the first stage; 16 as in He et al.
        classes: number of outputs; the default is that of CIFAR-10.
        seed: of the initial weights, torch's default laws.

    Returns:
        The network: 272,474 parameters on CIFAR-10, 78,042 with `depth=10`.

    Raises:
        ValueError: if the depth is not 6 n + 4 or the width is below 1.

    Source: He, Zhang, Ren, Sun, "Deep Residual Learning for Image Recognition", CVPR 2016, section 4.2.
    """
    channels, height, width_of_image = image_shape(input_shape, "resnet", smallest=1)
    if depth < 10 or depth % 6 != 4:
        msg = f"depth is {depth}; expected 6 n + 4 for n >= 1 blocks per stage: 10, 16, 22, 28, ..."
        raise ValueError(msg)
    if width < 1:
        msg = f"width must be at least 1 filter, got {width}"
        raise ValueError(msg)
    blocks, outputs = (depth - 4) // 6, class_count(classes)

    def layers() -> Modules:
        modules: list[tuple[str, nn.Module]] = [
            ("conv1", _convolution(channels, width)),
            ("norm1", nn.BatchNorm2d(width)),
            ("relu1", nn.ReLU()),
        ]
        filters = width
        for stage in range(3):
            for block in range(blocks):
                stride = 2 if stage > 0 and block == 0 else 1
                modules += [
                    (f"block{stage + 1}_{block + 1}", _block(filters, width * 2**stage, stride)),
                    (f"relu{stage + 1}_{block + 1}", nn.ReLU()),
                ]
                filters = width * 2**stage
        return [
            *modules,
            ("pool", nn.AdaptiveAvgPool2d(1)),
            ("flatten", nn.Flatten()),
            ("linear", nn.Linear(filters, outputs)),
        ]

    arguments = {
        "input_shape": [channels, height, width_of_image],
        "depth": int(depth),
        "width": int(width),
        "classes": outputs,
    }
    return assemble("resnet", seed, layers, arguments)


def _convolution(inputs: int, outputs: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)


def _block(inputs: int, outputs: int, stride: int) -> Residual:
    body = nn.Sequential(
        _convolution(inputs, outputs, stride),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
        _convolution(outputs, outputs),
        nn.BatchNorm2d(outputs),
    )
    if stride == 1 and inputs == outputs:
        return Residual(body, nn.Identity())
    projection = nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False)
    return Residual(body, nn.Sequential(projection, nn.BatchNorm2d(outputs)))
