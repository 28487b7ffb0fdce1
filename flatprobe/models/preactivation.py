"""Pre-activation residual networks (He et al. 2016b): Wide ResNets and ResNet-18."""

from collections.abc import Sequence

from torch import nn

from flatprobe.models.recipes import Modules, assemble, class_count, image_shape
from flatprobe.models.resnet import Residual


def wide_resnet(
    input_shape: Sequence[int], *, depth: int = 40, widening: int = 4, classes: int = 10, seed: int = 0
) -> nn.Sequential:
    """Wide ResNet.

    3x3 convolution of 16, three stages of (depth - 4) / 6 blocks, BatchNorm, ReLU, average pool, linear.

    A block is BN-ReLU-conv-BN-ReLU-conv plus its shortcut; all its convolutions are 3x3, padded by 1, without bias.
    The stages have 16, 32 and 64 filters times the widening; the second and third halve the map in their first block.
    Where a block changes the shape, its shortcut is a 1x1 convolution of the block's first ReLU, else the identity.

    Args:
        input_shape: (channels, height, width), any size.
        depth: 6 n + 4 for n blocks per stage. 40 and the widening of 4 are T3's; S17's "22 layers of width 5" has
            `depth=22, widening=5`.
        widening: factor of the filters.
        classes: number of outputs; the default is that of CIFAR-10.
        seed: of the initial weights, torch's default laws.

    Returns:
        The network: 8,949,210 parameters with three channels and 10 classes (T3 Table 2); 6,711,194 for S17's.

    Raises:
        ValueError: if the depth is not 6 n + 4 or the widening is below 1.

    Source: T3 Table 2; S17 section VI-C1; Zagoruyko and Komodakis, "Wide Residual Networks", BMVC 2016, Table 1.
    """
    channels, height, width = image_shape(input_shape, "wide_resnet", smallest=1)
    outputs = class_count(classes)
    if depth < 10 or depth % 6 != 4:
        msg = f"depth is {depth}; expected 6 n + 4 for n >= 1 blocks per stage: 10, 16, 22, 28, ..."
        raise ValueError(msg)
    if widening < 1:
        msg = f"widening is {widening}; expected a factor of at least 1"
        raise ValueError(msg)
    stages = [16 * widening, 32 * widening, 64 * widening]

    def layers() -> Modules:
        stem = ("conv1", nn.Conv2d(channels, 16, 3, padding=1, bias=False))
        return [stem, *_stages(16, stages, (depth - 4) // 6), *_head(stages[-1], outputs)]

    arguments = {
        "input_shape": [channels, height, width],
        "depth": int(depth),
        "widening": int(widening),
        "classes": outputs,
    }
    return assemble("wide_resnet", seed, layers, arguments)


def resnet18(input_shape: Sequence[int], *, width: int = 64, classes: int = 1000, seed: int = 0) -> nn.Sequential:
    """ResNet-18 with pre-activation blocks.

    7x7 convolution of stride 2, BatchNorm, ReLU, 3x3 max-pool of stride 2, eight blocks, average pool, linear.

    Four stages of two blocks as in `wide_resnet`, with `width` times 1, 2, 4 and 8 filters. The first block uses the
    BatchNorm and ReLU of the stem (He et al. 2016b, section 3.2). BatchNorm and ReLU precede the average pool.

    Args:
        input_shape: (channels, height, width), any size; S17 crops to (3, 112, 112).
        width: filters of the first stage; 64 as in He et al.
        classes: number of outputs; the default is that of ImageNet, as in S17.
        seed: of the initial weights, torch's default laws.

    Returns:
        The network: 11,687,720 parameters with three channels and 1,000 classes, those of the ResNet-18 of He et al.
        2016a (11,689,512 in torchvision) without the BatchNorm of its three projections.

    Raises:
        ValueError: if the width is below 1.

    Source: S17 section VI-C2; He, Zhang, Ren, Sun, "Identity Mappings in Deep Residual Networks", ECCV 2016.
    """
    channels, height, width_of_image = image_shape(input_shape, "resnet18", smallest=1)
    outputs = class_count(classes)
    if width < 1:
        msg = f"width must be at least 1 filter, got {width}"
        raise ValueError(msg)

    def layers() -> Modules:
        stem = [
            ("conv1", nn.Conv2d(channels, width, 7, stride=2, padding=3, bias=False)),
            ("norm1", nn.BatchNorm2d(width)),
            ("relu1", nn.ReLU()),
            ("pool1", nn.MaxPool2d(3, stride=2, padding=1)),
            ("block1_1", Residual(nn.Sequential(*_rest(width, width, 1)), nn.Identity())),
        ]
        stages = _stages(width, [width, 2 * width, 4 * width, 8 * width], 2)
        return [*stem, *stages[1:], *_head(8 * width, outputs)]

    arguments = {"input_shape": [channels, height, width_of_image], "width": int(width), "classes": outputs}
    return assemble("resnet18", seed, layers, arguments)


def _stages(inputs: int, stages: Sequence[int], blocks: int) -> list[tuple[str, nn.Module]]:
    """Named blocks of the stages; all stages but the first halve the map."""
    modules: list[tuple[str, nn.Module]] = []
    for stage, filters in enumerate(stages, start=1):
        for block in range(1, blocks + 1):
            stride = 2 if stage > 1 and block == 1 else 1
            modules.append((f"block{stage}_{block}", _block(inputs, filters, stride)))
            inputs = filters
    return modules


def _block(inputs: int, outputs: int, stride: int) -> nn.Module:
    first = [nn.BatchNorm2d(inputs), nn.ReLU()]
    rest = _rest(inputs, outputs, stride)
    if stride == 1 and inputs == outputs:
        return Residual(nn.Sequential(*first, *rest), nn.Identity())
    projection = nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False)
    return nn.Sequential(*first, Residual(nn.Sequential(*rest), projection))


def _rest(inputs: int, outputs: int, stride: int) -> list[nn.Module]:
    """Body of a block after its first BatchNorm and ReLU."""
    return [
        nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
        nn.Conv2d(outputs, outputs, 3, padding=1, bias=False),
    ]


def _head(filters: int, outputs: int) -> list[tuple[str, nn.Module]]:
    return [
        ("norm", nn.BatchNorm2d(filters)),
        ("relu", nn.ReLU()),
        ("pool", nn.AdaptiveAvgPool2d(1)),
        ("flatten", nn.Flatten()),
        ("linear", nn.Linear(filters, outputs)),
    ]
