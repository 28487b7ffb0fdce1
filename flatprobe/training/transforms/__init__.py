"""Input transformations T of SPEC section 5, one file each: (x, y) -> (x', y'), trained on as l(f(x'), y').

A transform is any callable `transform(passed) -> (inputs, labels)` on a `ForwardPass` over the untransformed batch,
whose logits are computed only where the transform asks for them. Several are applied one after the other.
"""

from collections.abc import Callable
from typing import Any

from torch import Tensor

from flatprobe.training.passes import ForwardPass, Mixture

Transform = Callable[[ForwardPass], tuple[Tensor, Tensor | Mixture]]

TRANSFORMS: dict[str, Callable[..., Any]] = {}

__all__ = ["TRANSFORMS", "Transform"]
