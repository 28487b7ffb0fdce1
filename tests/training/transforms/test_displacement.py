"""Deformed images and how rough a deformation is: closed forms, a slow reference, derivatives."""

import math

import pytest
import torch
from torch.nn import functional as F

from flatprobe.training.transforms import displacement
from flatprobe.utils.rng import generator

EXACT = {"rtol": 1e-9, "atol": 1e-12}  # algebra in float64


def images(samples: int = 3, size: tuple[int, int] = (5, 7)) -> torch.Tensor:
    return torch.randn(samples, 2, *size, generator=generator(0, "images"), dtype=torch.float64)


def displacements(samples: int = 3, grid: int = 4) -> torch.Tensor:
    return torch.randn(samples, 2, grid, grid, generator=generator(1, "tau"), dtype=torch.float64)


def pixel(image: torch.Tensor, row: float, column: float) -> torch.Tensor:
    """Slow reference: bilinear between four pixels, the border's beyond it; (channels,)."""
    height, width = image.shape[1:]
    total = torch.zeros(len(image), dtype=image.dtype)
    for r, by_row in ((math.floor(row), 1 - row % 1), (math.floor(row) + 1, row % 1)):
        for c, by_column in ((math.floor(column), 1 - column % 1), (math.floor(column) + 1, column % 1)):
            inside = min(max(r, 0), height - 1), min(max(c, 0), width - 1)
            total += by_row * by_column * image[:, inside[0], inside[1]]
    return total


def test_images_are_sampled_where_the_displacement_points() -> None:
    """Slow reference, pixel by pixel."""
    x, tau = images(), displacements()
    found = displacement.deform(x, tau)
    fine = F.interpolate(tau, size=(5, 7), mode="bilinear", align_corners=True)
    for i in range(3):
        for row in range(5):
            for column in range(7):
                right, down = fine[i, :, row, column].tolist()
                expected = pixel(x[i], row - down, column - right)
                torch.testing.assert_close(found[i, :, row, column], expected, **EXACT)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_property_no_displacement_gives_the_images_back_bit_by_bit(dtype: torch.dtype) -> None:
    x = images(size=(28, 28)).to(dtype)
    assert torch.equal(displacement.deform(x, torch.zeros(3, 2, 4, 4, dtype=dtype)), x)


def test_whole_pixels_shift_the_image() -> None:
    """Closed form: two to the left and one down."""
    x = images()
    tau = torch.tensor([-2.0, 1.0], dtype=torch.float64).view(1, 2, 1, 1).expand(3, 2, 1, 1)
    torch.testing.assert_close(displacement.deform(x, tau)[:, :, 1:, :-2], x[:, :, :-1, 2:], **EXACT)


def test_slow_reference_derivatives_in_images_and_displacement() -> None:
    tau, x = displacements(1).requires_grad_(), images(1).requires_grad_()
    assert torch.autograd.gradcheck(displacement.deform, (x, tau))


def test_roughness_of_an_affine_displacement() -> None:
    """Closed form: the spectral norm of its matrix, and its length at the farthest corner."""
    matrix = torch.tensor([[0.1, -0.2], [0.05, 0.3]], dtype=torch.float64)
    columns, rows = (torch.linspace(0, end, 5, dtype=torch.float64) for end in (26, 20))
    nodes = torch.stack([columns.expand(5, 5), rows[:, None].expand(5, 5)])
    tau = torch.einsum("ab,brc->arc", matrix, nodes)[None]
    slope = float(torch.linalg.matrix_norm(matrix, 2))
    far = max(float((matrix @ torch.tensor(corner).double()).norm()) for corner in [(26, 20), (26, 0), (0, 20)])
    found = displacement.roughness(tau, (21, 27), c1=3.0, c2=0.25)
    assert float(found) == pytest.approx(3 * slope + 0.25 * far, rel=1e-9)


def test_roughness_bounds_the_slope_everywhere_and_is_reached() -> None:
    """Slow reference: differences of the finely upsampled displacement, within a cell's step of 1/400."""
    tau = displacements()
    fine = F.interpolate(tau, size=(49 * 20 + 1, 69 * 20 + 1), mode="bilinear", align_corners=True)
    columns = 20 * fine.diff(dim=3)[:, :, :-1]
    rows = 20 * fine.diff(dim=2)[..., :-1]
    slopes = torch.linalg.matrix_norm(torch.stack([columns, rows], -1).permute(0, 2, 3, 1, 4), 2).flatten(1).amax(1)
    found = displacement.roughness(tau, (50, 70), c1=1.0, c2=0.0)
    assert bool((slopes <= found * (1 + 1e-9)).all())
    torch.testing.assert_close(slopes, found, rtol=1e-2, atol=0.0)


def test_property_roughness_is_a_norm_and_within_scales_onto_its_ball() -> None:
    tau = displacements()
    found = displacement.roughness(tau, (5, 7))
    torch.testing.assert_close(displacement.roughness(-3 * tau, (5, 7)), 3 * found, **EXACT)
    scaled = displacement.scale_within(tau, found)
    torch.testing.assert_close(displacement.roughness(scaled, (5, 7)), found.clamp_max(1), **EXACT)
    small = tau / 100
    assert torch.equal(displacement.scale_within(small, displacement.roughness(small, (5, 7))), small)


@pytest.mark.parametrize("grid", [1, 2, 5])
def test_smoothed_gradients_solve_their_equation(grid: int) -> None:
    """Slow reference: c1^2 D^T D + c2^2 as a dense matrix on the nodes, rows 20 pixels and columns 30 pixels apart."""
    g = displacements(grid=grid)
    D = torch.eye(grid, dtype=torch.float64).diff(dim=0)
    spaces = ((n - 1) / max(grid - 1, 1) for n in (21, 31))
    down, across = (D.T @ D / space**2 for space in spaces)
    eye = torch.eye(grid, dtype=torch.float64)
    matrix = 3.0**2 * (torch.kron(down, eye) + torch.kron(eye, across)) + 0.5**2 * torch.eye(grid**2)
    expected = torch.linalg.solve(matrix, g.flatten(2).mT).mT.view_as(g)
    torch.testing.assert_close(displacement.smooth(g, (21, 31), c1=3.0, c2=0.5), expected, **EXACT)


def test_refusals() -> None:
    with pytest.raises(ValueError, match=r"shape \(3, 4\); expected images .* at least 2 x 2 pixels"):
        displacement.check_deformable(torch.zeros(3, 4))
    with pytest.raises(ValueError, match=r"displacement has shape \(2, 2, 4, 4\); expected \(3, 2, grid, grid\)"):
        displacement.deform(images(), displacements(2))
