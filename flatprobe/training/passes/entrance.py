"""Networks that take their inputs in by one linear layer: behind it the Jacobian's rows are shorter."""

from torch import Tensor
from torch.autograd.graph import GradientEdge, Node

from flatprobe.training.passes.layers import Layer

# Steps of a graph that only rearrange a sample's numbers, so that inner products stay what they are.
_KINDS = ("Alias", "Clone", "View", "ReshapeAlias", "UnsafeView", "Squeeze", "Unsqueeze", "Transpose", "Permute")
_REARRANGE = tuple(f"{kind}Backward" for kind in _KINDS)


def entrance(
    layers: tuple[Layer, ...], points: Tensor, of: Tensor, rows: int
) -> tuple[GradientEdge, Tensor] | tuple[None, None]:
    """The linear layer zhat = W x + b by which alone `of` depends on the inputs, if it pays to stop there.

    Then J = A W with A the derivative with respect to zhat, and J J^T = A (W W^T) A^T. With n rows in all, d inputs and
    h outputs the rows of J take n d h multiplications on the way there and twice as many on the way back; W W^T and
    A (W W^T) take h^2 d + n h^2 there, and as many back. The products' rounding is relative to ||A||^2 ||W||^2 then.

    Args:
        layers: of the pass.
        points: its inputs.
        of: a function of them, such as the logits.
        rows: of J, a sample.

    Returns:
        Where the gradient with respect to zhat is found, and W; None twice if there is no such layer, or the rows of J
        cost less.
    """
    for layer in layers:
        if layer.kind != "linear" or layer.source is None or layer.target is None or layer.weight.ndim != 2:
            continue
        if layer.input_shape != (len(points), points[0].numel()) or not _pays(rows * len(points), *layer.weight.shape):
            continue
        if _rearranges(layer.source.node, points) and not _reaches(of, points, without=layer.source.node):
            return layer.target, layer.weight
    return None, None


def _pays(rows: int, outputs: int, inputs: int) -> bool:
    return 2 * (outputs**2 * inputs + rows * outputs**2) < 3 * rows * inputs * outputs


def _rearranges(node: Node, points: Tensor) -> bool:
    """Whether what comes out at this node are the inputs in another order."""
    while not _holds(node, points):
        name = node.name()
        if not name.startswith(_REARRANGE) or node.next_functions[0][0] is None:
            return False
        node = node.next_functions[0][0]
    return True


def _reaches(of: Tensor, points: Tensor, *, without: Node) -> bool:
    """Whether `of` depends on the inputs on a way that does not pass that node."""
    seen, ahead = {without}, [of.grad_fn]
    while ahead:
        node = ahead.pop()
        if node is None or node in seen:
            continue
        if _holds(node, points):
            return True
        seen.add(node)
        ahead.extend(following for following, _ in node.next_functions)
    return False


def _holds(node: Node, points: Tensor) -> bool:
    return getattr(node, "variable", None) is points
