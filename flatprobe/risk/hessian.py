"""Block of the Hessian of a risk at one point, as products and quadratic forms."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import islice
from typing import Any

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef

from flatprobe.network.contexts import standalone
from flatprobe.network.storage import storage_of
from flatprobe.network.watching import Watching, tensors_in
from flatprobe.network.weights import Weights
from flatprobe.risk.derivatives import Losses, add_terms, gradient_of, mean_of, precise_dot, variables_at
from flatprobe.utils.plain_functions import twice_differentiable

_REFERENCE: Any = StorageWeakRef
# Bytes of the graphs that are kept between products. Those of the batches beyond are built anew for each product.
KEPT = 2**30


class HessianBlock:
    """Block of the Hessian of a mean loss over named weights.

    Reverse over reverse: the gradient of each batch is differentiated along the directions. In
    `python -m tests.benchmarks sharpness` a product costs 1.9 gradients on an MLP, 3.0 on a CNN and 5.2 on a ResNet;
    forward over reverse (`torch.func.jvp` of `grad`) costs 3.0, 3.2 and 4.6. The directions of a call share the graph
    of the gradient, and calls share those that are kept. Attention runs on its plain kernel, since fused kernels have
    no second derivative.

    Args:
        losses: the sums of the losses as functions of the weights, one per batch, anew at each call.
        point: all weights.
        names: the parameters of the block; the others stay fixed.
        count: number of samples of the mean.
        kept: bytes of the graphs that are kept between calls. Kept graphs must not depend on what later passes write.
    """

    def __init__(
        self, losses: Callable[[], Losses], point: Mapping[str, Tensor], names: Sequence[str], count: int, kept: float
    ) -> None:
        self._losses, self._point, self._count, self._room = losses, point, count, kept
        self._slopes: list[Weights] = []  # the gradients of the first batches, with their graphs
        self._complete = False
        with torch.inference_mode(mode=False):
            self._variables = variables_at(point, names)

    def free(self) -> None:
        """Free the graphs; later products build them anew."""
        self._slopes.clear()
        self._complete, self._room = False, 0.0

    @standalone
    def products(self, directions: Sequence[Mapping[str, Tensor]], like: Mapping[str, Tensor]) -> list[Weights]:
        """Products H v, summed in float64.

        Args:
            directions: vectors over some of the names; a missing name counts as zero.
            like: weights whose types the products have.
        """
        total: list[Weights] = [{} for _ in directions]
        self._each_product(directions, lambda place, product: add_terms(total[place], product))
        empty = {name: value.detach() for name, value in self._variables.items()}
        return [mean_of(own or {n: torch.zeros_like(w) for n, w in empty.items()}, self._count, like) for own in total]

    @standalone
    def forms(self, directions: Sequence[Mapping[str, Tensor]]) -> list[dict[str, float]]:
        """Quadratic forms (v, H v), split by parameter tensor.

        Args:
            directions: vectors over the names.

        Returns:
            For each direction, name -> sum of v_j (H v)_j over the entries j of the parameter.
        """
        device = next(iter(self._variables.values())).device
        total = torch.zeros(len(directions), len(self._variables), dtype=torch.float64, device=device)

        def take(place: int, product: Weights) -> None:
            total[place] += torch.stack([precise_dot(directions[place][n], own) for n, own in product.items()])

        self._each_product(directions, take)
        return [dict(zip(self._variables, row, strict=True)) for row in (total / self._count).tolist()]

    def _each_product(self, directions: Sequence[Mapping[str, Tensor]], take: Callable[[int, Weights], None]) -> None:
        """Pass the product of each batch with each direction to `take`."""
        try:
            with torch.enable_grad(), twice_differentiable():
                for slopes in self._slopes:
                    self._differentiate(slopes, directions, take, keep=True)
                if not self._complete:
                    self._build(directions, take)
        except BaseException:
            self.free()  # Where memory runs out, the next try has no kept graphs, and smaller batches than these.
            raise

    def _build(self, directions: Sequence[Mapping[str, Tensor]], take: Callable[[int, Weights], None]) -> None:
        """The products of the batches whose graphs are not kept."""
        complete = True
        for loss in islice(self._losses(), len(self._slopes), None):
            slopes, keep = self._gradient(loss)
            self._differentiate(slopes, directions, take, keep=keep)
            if keep:
                self._slopes.append(slopes)
            complete &= keep
            del slopes  # Frees its graph before that of the next batch.
        self._complete = complete

    def _differentiate(
        self,
        slopes: Weights,
        directions: Sequence[Mapping[str, Tensor]],
        take: Callable[[int, Weights], None],
        *,
        keep: bool,
    ) -> None:
        for place, direction in enumerate(directions):
            # A gradient without a graph is constant, since the loss is affine in these weights.
            curved = [name for name in slopes if slopes[name].requires_grad and name in direction]
            if curved:
                product = torch.autograd.grad(
                    [slopes[name] for name in curved], list(self._variables.values()),
                    [direction[name].to(slopes[name]) for name in curved],
                    retain_graph=keep or place + 1 < len(directions), materialize_grads=True,
                )  # fmt: skip
                terms = dict(zip(self._variables, product, strict=True))
                del product
                take(place, terms)
                del terms

    def _gradient(self, loss: Callable[[Weights], Tensor]) -> tuple[Weights, bool]:
        """The gradient of a batch, and True if its graph is kept."""
        weights = {**self._point, **self._variables}
        if self._room in {0, float("inf")}:
            return gradient_of(loss(weights), self._variables, again=True), self._room > 0
        with _Made() as made:
            slopes = gradient_of(loss(weights), self._variables, again=True)
        size = made.held()
        keep = size <= self._room
        self._room = self._room - size if keep else 0
        return slopes, keep


class _Made(Watching):  # type: ignore[no-untyped-call] # torch's own
    """Context that records the memory that operations make."""

    def __init__(self) -> None:
        super().__init__()
        self._made: dict[int, tuple[Any, int]] = {}

    def __torch_dispatch__(
        self, func: Any, _types: Iterable[type], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        given = {*map(storage_of, tensors_in((*args, *(kwargs or {}).values())))}
        result = func(*args, **(kwargs or {}))
        for value in tensors_in((result,)):
            address = storage_of(value)
            if address is not None and address not in given:  # A view makes no memory.
                storage = value.untyped_storage()
                self._made[address] = _REFERENCE(storage), storage.nbytes()
        return result

    def held(self) -> int:
        """The bytes that still exist."""
        return sum(size for reference, size in self._made.values() if not reference.expired())
