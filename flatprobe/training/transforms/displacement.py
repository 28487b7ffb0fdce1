"""Small smooth deformations of images: displacements on a coarse grid, their roughness, and the deformed images."""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from flatprobe.attacks.points import per_sample

# (samples, channels, height, width) and (samples, 2, grid, grid): loose types, since other shapes have an error.
Images = Float[Tensor, "samples ..."]
Displacement = Float[Tensor, "grids ..."]
Values = Float[Tensor, " grids"]

# c1: C <= 1 then gives ||grad tau|| <= 1/2, which the stability theorem assumes; u - tau(u) is then one-to-one.
GRADIENT_WEIGHT = 2.0
# c2, per pixel: C <= 1 then moves no pixel by more than 2. Ours; the theorem's is one over the last pooling's width.
SIZE_WEIGHT = 0.5


def deform(inputs: Images, displacement: Displacement) -> Images:
    """x_tau(u) = x(u - tau(u)), tau bilinear between the nodes of the grid and x bilinear between the pixels.

    The grid's corner nodes are the image's corner pixels; beyond the border the image repeats its border pixels.
    Four look-ups per pixel. A zero displacement returns the images bit by bit. Differentiable in both arguments: where
    u - tau(u) is the centre of a pixel, as at tau = 0, the derivative in tau is one-sided, towards the next pixel.

    Args:
        inputs: x, (samples, channels, height, width).
        displacement: tau at the nodes, (samples, 2, grid, grid) in pixels: first along the columns (to the right), then
            along the rows (down).

    Returns:
        The deformed images.

    Raises:
        ValueError: for inputs that are no images, or a displacement of another shape.

    Source: Bietti et al. (2019) [B19]; Bietti and Mairal (2019), "Group invariance, stability to
    deformations, and complexity of deep convolutional representations".

    >>> image = torch.tensor([[[[1.0, 2.0, 4.0], [0.0, 0.0, 0.0]]]])
    >>> to_the_right = torch.tensor([1.0, 0.0]).view(1, 2, 1, 1)
    >>> deform(image, to_the_right)[0, 0].tolist()
    [[1.0, 1.0, 2.0], [0.0, 0.0, 0.0]]
    """
    check_deformable(inputs)
    _check_displacement(displacement, len(inputs))
    size = inputs.shape[2:]
    tau = F.interpolate(displacement, size=tuple(size), mode="bilinear", align_corners=True)
    rows, columns = (torch.arange(n, device=tau.device, dtype=tau.dtype) for n in size)
    left, right, across = _between(columns - tau[:, 0], size[1])
    above, below, down = _between(rows[:, None] - tau[:, 1], size[0])

    def at(row: Tensor, column: Tensor) -> Tensor:
        index = (row * size[1] + column).flatten(1)[:, None].expand(-1, inputs.shape[1], -1)
        return inputs.flatten(2).gather(2, index).view_as(inputs)

    upper = at(above, left).lerp(at(above, right), across)
    return upper.lerp(at(below, left).lerp(at(below, right), across), down)


def roughness(
    displacement: Displacement,
    image_size: tuple[int, int] | torch.Size,
    *,
    c1: float = GRADIENT_WEIGHT,
    c2: float = SIZE_WEIGHT,
) -> Values:
    """C(tau) = c1 sup_u ||grad tau(u)||_2 + c2 sup_u ||tau(u)||_2, a norm of the displacement.

    Exact: both norms are convex in each cell of the grid, so their maxima are at its corners.

    Args:
        displacement: tau at the nodes, (samples, 2, grid, grid) in pixels.
        image_size: height and width of the images, in pixels.
        c1: 2: C <= 1 gives ||grad tau|| <= 1/2, which the stability theorem of Bietti and Mairal 2019 assumes.
        c2: per pixel; 0.5: C <= 1 moves no pixel by more than 2. Ours.

    Returns:
        C, one per sample.

    Raises:
        ValueError: for a displacement that is not (samples, 2, grid, grid).

    Source: Bietti et al. (2019), C(tau) <= 1 [B19], in the form of the stability bound of Bietti and Mairal (2019).

    >>> roughness(torch.tensor([3.0, 4.0]).view(1, 2, 1, 1), (28, 28))
    tensor([2.5000])
    """
    _check_displacement(displacement, len(displacement))
    largest: Tensor = torch.linalg.vector_norm(displacement, dim=1).flatten(1).amax(1)
    if displacement.shape[-1] == 1:
        return c2 * largest
    down, across = ((n - 1) / (displacement.shape[-1] - 1) for n in image_size)
    by_column = displacement.diff(dim=3) / across
    by_row = displacement.diff(dim=2) / down
    corners = [
        _spectral(by_column[:, :, top:bottom], by_row[..., left:right])
        for top, bottom in ((0, -1), (1, None))
        for left, right in ((0, -1), (1, None))
    ]
    return c1 * torch.stack(corners).flatten(2).amax((0, 2)) + c2 * largest


def scale_within(displacement: Displacement, roughnesses: Values) -> Displacement:
    """tau / max(1, C(tau)), scaled onto C <= 1, since C is a norm."""
    return displacement / per_sample(roughnesses, displacement).clamp_min(1)


def smooth(gradient: Displacement, image_size: tuple[int, int] | torch.Size, *, c1: float, c2: float) -> Displacement:
    """The smooth displacement of steepest ascent: (c1^2 D^T D + c2^2)^-1 g, D the differences of the nodes.

    It maximizes <g, tau> for a given sum of c1^2 ||grad tau||^2 + c2^2 ||tau||^2 over the nodes, which is C with means
    in place of suprema. A step along g would be as rough as g, which may have a single node. Cosines are the
    eigenvectors of D^T D.

    Args:
        gradient: g at the nodes, (samples, 2, grid, grid).
        image_size: height and width of the images, in pixels.
        c1: as in `roughness`.
        c2: as in `roughness`.

    Returns:
        Shaped like the gradient, of any length.
    """
    grid = gradient.shape[-1]
    frequencies = torch.arange(grid, dtype=gradient.dtype, device=gradient.device)
    waves = torch.cos(torch.pi / grid * frequencies[:, None] * (frequencies + 0.5))
    waves = waves / torch.linalg.vector_norm(waves, dim=1, keepdim=True)
    steepness = (2 * torch.sin(torch.pi / (2 * grid) * frequencies)).square()
    rows, columns = (steepness * (max(grid - 1, 1) / (n - 1)) ** 2 for n in image_size)
    scale = c1**2 * (rows[:, None] + columns) + c2**2
    found: Tensor = waves.mT @ (waves @ gradient @ waves.mT / scale) @ waves
    return found


def check_deformable(inputs: Tensor) -> None:
    """Check that the inputs are images of at least 2 x 2 pixels.

    Raises:
        ValueError: for other inputs.
    """
    if inputs.ndim != 4 or min(inputs.shape[2:]) < 2:
        msg = (
            f"the inputs have shape {tuple(inputs.shape)}; expected images (samples, channels, height, width) of at "
            "least 2 x 2 pixels, which deformations move"
        )
        raise ValueError(msg)


def _check_displacement(displacement: Tensor, samples: int) -> None:
    if displacement.ndim != 4 or displacement.shape[:2] != (samples, 2) or len(set(displacement.shape[2:])) != 1:
        msg = (
            f"the displacement has shape {tuple(displacement.shape)}; expected ({samples}, 2, grid, grid): a vector in "
            "pixels at each node of a square grid, one grid per sample"
        )
        raise ValueError(msg)


def _between(positions: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """The two neighbouring pixels along an axis, and the position between them from 0 to 1."""
    first = positions.detach().floor()
    near, far = ((first + step).clamp(0, count - 1).to(torch.int64) for step in (0, 1))
    return near, far, (positions - first)[:, None]


def _spectral(by_column: Tensor, by_row: Tensor) -> Tensor:
    """||.||_2 of the 2 x 2 matrices with these columns (axis 1): half the sum of two lengths."""
    a, c = by_column.unbind(1)
    b, d = by_row.unbind(1)
    turning, mirroring = (torch.stack(pair) for pair in ((a + d, b - c), (a - d, b + c)))
    doubled: Tensor = torch.linalg.vector_norm(turning, dim=0) + torch.linalg.vector_norm(mirroring, dim=0)
    return doubled / 2
