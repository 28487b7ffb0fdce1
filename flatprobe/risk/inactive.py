"""Weights that do not affect the logits, such as an unused vocabulary."""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from flatprobe.data.inputs import Inputs, map_tensors
from flatprobe.network.weights import Weights, norm
from flatprobe.risk.directions import direction, scale
from flatprobe.risk.empirical import EmpiricalRisk, RiskFunction
from flatprobe.utils import rng
from flatprobe.utils.arguments import one_of
from flatprobe.utils.memory import fit_batch_size

# Samples of the search, unless it covers all: with the gradient, at most 3 % of the cost of ten directions on an MLP.
_SAMPLES = 256
# Samples of the passes far from the center.
_FEW = 32
# Points of the search, in units of the distance that moves the weights by their norm. Beside the center, no gradient is
# 0 by coincidence (a factor of 0). Far away on either side, units become active that are off for all samples at the
# center. Entries without a gradient beside the center move by so little from there that no unit becomes active.
_BESIDE, _MOVED, _FAR = 1e-2, 1e-4, (10.0, -10.0)
# The most forward passes for entries that have no gradient and affect the logits nevertheless.
_TESTS = 64
_BYTES = 2**28  # Bytes of the logits that are kept for them.

Masks = dict[str, Tensor]
# Rows of the named parameters, along their first dimension.
Rows = dict[str, slice]


@dataclass(frozen=True)
class Inactive:
    """Entries of the weights that do not affect the logits.

    Attributes:
        masks: name -> mask of the entries, for the names that have any.
        samples: the number of samples of the search, the first of the data.
    """

    masks: Masks
    samples: int

    @property
    def counts(self) -> dict[str, int]:
        """Name -> number of entries."""
        return {name: int(mask.sum()) for name, mask in self.masks.items()}


def inactive_entries(risk: RiskFunction, names: Sequence[str], law: str, *, whole: bool) -> Inactive | None:
    """Selected weights that do not affect the logits along directions.

    An entry is inactive if the gradient of sum_i c_i . z(x_i), c_i random, is exactly 0 at three points: beside the
    center on the samples of the search, and at ten times the norm of the weights to either side on a few samples. A
    unit that is off for all samples at the three points counts as inactive. What remains is then moved beside the
    center: an entry that changes a logit without a gradient (`padding_idx`, a forward under `no_grad`) is active.

    Cost: 1 forward and 1 backward pass of a few samples if every entry is active. Otherwise 1 forward and 1 backward
    pass of the samples of the search, and a few forward passes.

    Args:
        risk: the risk, whose network and data are examined.
        names: the selection; other weights do not move.
        law: the normalization, of `flatprobe.risk.directions`.
        whole: True for a search over all samples, False for the first 256.

    Returns:
        The entries. None if they are not known: the risk has no network, the network has no derivative, or its logits
        are not finite beside the center.

    Raises:
        ValueError: if no selected parameter moves under the normalization.
    """
    if not isinstance(risk, EmpiricalRisk):
        return None
    look = _Look(risk, names, law, len(risk.data) if whole else min(_SAMPLES, len(risk.data)))
    try:
        return look.inactive()
    finally:
        risk.network.rest()


def find_inactive(risk: RiskFunction, names: Sequence[str], law: str, inactive: str) -> tuple[Inactive | None, Masks]:
    """Inactive entries, and masks of the entries that directions hold.

    Directions hold all inactive entries for `"hold"`, and none for `"move"`.

    Raises:
        ValueError: for another value of `inactive`.
        ValueError: for `"hold"` if the inactive entries are not known, or are all selected entries.
    """
    one_of("inactive", inactive, ("move", "hold"))
    idle = inactive_entries(risk, names, law, whole=inactive == "hold")
    if inactive == "move":
        return idle, {}
    if idle is None:
        msg = (
            'inactive is "hold", and which weights do not act is not known; expected an fp.EmpiricalRisk of a network '
            'that can be differentiated, with finite logits beside its weights: take inactive="move"'
        )
        raise ValueError(msg)
    if sum(idle.counts.values()) == sum(risk.center[name].numel() for name in names):
        raise ValueError(_nothing_acts(risk, names))
    return idle, idle.masks


def check_acts(risk: RiskFunction, names: Sequence[str], law: str = "isotropic") -> None:
    """Check that the selected weights affect a logit.

    Cost: usually 1 forward and 1 backward pass of a few samples.

    Raises:
        ValueError: if no logit depends on the selection.
    """
    if not isinstance(risk, EmpiricalRisk):
        return
    look = _Look(risk, names, law, len(risk.data))
    try:
        if look.anything_acts():
            return
    finally:
        risk.network.rest()
    raise ValueError(_nothing_acts(risk, names))


def _nothing_acts(risk: RiskFunction, names: Sequence[str]) -> str:
    network = risk.network.name if isinstance(risk, EmpiricalRisk) else type(risk).__name__
    return (
        f"the selected parameters ({', '.join(names)}) do not act on the loss: no logit of {network} changes when they "
        "move; expected a selection that acts: choose others (parameters=None for all), or measure the network in a "
        "form in which these parameters act (adapters before eval() has merged them)"
    )


class _Look:
    """Search for inactive entries at points along one direction."""

    def __init__(self, risk: EmpiricalRisk, names: Sequence[str], law: str, samples: int) -> None:
        self.risk, self.network, self.samples = risk, risk.network, samples
        self.center = risk.center
        self.draw = partial(direction, self.center, names, law, 0, -1)  # drawn again rather than stored
        self.unit = scale(self.center, names, law)
        # A backward pass stores the intermediate values that a forward pass frees.
        self.together = max(1, fit_batch_size(risk.batch_size) // 4)
        self.logits: list[Tensor] = []  # Of the first batches, computed beside the center at first use.
        self._room = _BYTES

    def inactive(self) -> Inactive | None:
        """Inactive entries, as `inactive_entries` returns them."""
        beside = self._point(_BESIDE)
        masks = self._whole(beside)
        for inputs in self._batches():
            if not self._take(inputs, beside, masks):
                return None
            if not masks:
                return Inactive({}, self.samples)
        del beside  # Drawn again only if a candidate remains: far away, most units become active.
        few = map_tensors(lambda part: part[:_FEW], next(self._batches()))
        for distance in _FAR:
            if masks:
                self._take(few, self._point(distance), masks)
        return Inactive(self._confirmed(self._point(_BESIDE), masks) if masks else {}, self.samples)

    def anything_acts(self) -> bool:
        """True if an entry has a gradient beside the center, or changes a logit there."""
        beside = self._point(_BESIDE)
        masks = self._whole(beside)
        for inputs in self._batches():
            slopes = self._slopes(inputs, beside, masks)
            if slopes is None or any(bool((slope != 0).any()) for slope in slopes.values()):
                return True
        return self._differs(beside, masks, {name: slice(None) for name in masks})

    def _whole(self, point: Weights) -> Masks:
        floating = [name for name in point if self.center[name].is_floating_point()]
        return {name: torch.ones_like(self.center[name], dtype=torch.bool) for name in floating}

    def _batches(self) -> Iterator[Inputs]:
        positions = torch.arange(self.samples, device="cpu")
        return (inputs for inputs, _ in self.risk.held.at(positions, self.together))

    def _point(self, distance: float) -> Weights:
        step = distance * self.unit
        return {name: torch.add(self.center[name], u, alpha=step, out=u) for name, u in self.draw().items()}

    def _slopes(self, inputs: Inputs, point: Weights, names: Iterable[str]) -> Weights | None:
        """Gradients by name; None without derivatives, or if logits are not finite.

        Raises:
            RuntimeError: if memory is exhausted.
        """
        with torch.enable_grad():
            variables = {name: point[name].detach().requires_grad_() for name in names}
            logits = self.network(inputs, {**point, **variables})
            if not bool(logits.isfinite().all()):
                return None
            if not logits.requires_grad:
                return {}
            cotangent = rng.normal(logits.shape, "inactive", device=logits.device).to(logits)
            weighted = (logits * cotangent).sum()
            try:
                slopes = torch.autograd.grad(weighted, list(variables.values()), allow_unused=True)
            except RuntimeError as error:
                if isinstance(error, torch.OutOfMemoryError) or "allocate" in str(error):
                    raise
                return None  # No derivative; some probes do not need one.
        found = zip(variables, slopes, strict=True)
        # The gradient of an embedding may be sparse.
        return {name: slope.to_dense() for name, slope in found if slope is not None}  # type: ignore[redundant-expr]

    def _take(self, inputs: Inputs, point: Weights, masks: Masks) -> bool:
        """Remove entries with a gradient from the masks; False if it is unknown."""
        slopes = self._slopes(inputs, point, masks)
        for name, slope in (slopes or {}).items():
            masks[name] = masks[name] & (slope == 0)
            if not bool(masks[name].any()):
                del masks[name]
        return slopes is not None

    def _confirmed(self, beside: Weights, masks: Masks) -> Masks:
        """The masks without rows that change a logit, which bisection finds."""
        doubted: list[Rows] = [{name: slice(0, len(_rows(mask))) for name, mask in masks.items()}]
        confirmed = {name: torch.zeros_like(mask) for name, mask in masks.items()}
        for _ in range(_TESTS):
            while doubted and not any(bool(_rows(masks[name])[part].any()) for name, part in doubted[-1].items()):
                doubted.pop()
            if not doubted:
                break
            rows = doubted.pop()
            if self._differs(beside, masks, rows):
                doubted += _halves(rows)
                continue
            for name, part in rows.items():
                _rows(confirmed[name])[part] = _rows(masks[name])[part]
        return {name: mask for name, mask in confirmed.items() if bool(mask.any())}

    def _beside(self, place: int, inputs: Inputs, beside: Weights) -> Tensor:
        """Logits of a batch beside the center, kept within a bound."""
        if place < len(self.logits):
            return self.logits[place]
        logits = self.network(inputs, beside)
        if place == len(self.logits) and logits.nbytes <= self._room:
            self.logits.append(logits)
            self._room -= logits.nbytes
        return logits

    def _differs(self, beside: Weights, masks: Masks, rows: Rows) -> bool:
        """True if a logit changes beyond rounding as these entries move."""
        u, moved = self.draw(), dict(beside)
        for name, part in rows.items():
            moved[name] = beside[name].clone()
            own = u.pop(name)
            # Each entry moves by the root mean square, so that a small number does not hide a single bias.
            step = _MOVED * self.unit * norm({name: own}) / math.sqrt(own.numel())
            _rows(moved[name])[part].add_(_rows(own.sign_().mul_(masks[name]))[part], alpha=step)
        del u
        with torch.no_grad():
            for place, inputs in enumerate(self._batches()):
                logits = self._beside(place, inputs, beside)
                others = self.network(inputs, moved)
                limit = 4 * torch.finfo(logits.dtype).eps * logits.abs().max()
                if not bool((others - logits).abs().max() <= limit):
                    return True
        return False


def _rows(value: Tensor) -> Tensor:
    """A view with at least one dimension."""
    return value if value.ndim else value[None]


def _halves(rows: Rows) -> list[Rows]:
    """Two halves of the names, or of the rows of a single name."""
    if len(rows) > 1:
        names = list(rows)
        return [{name: rows[name] for name in half} for half in (names[: len(names) // 2], names[len(names) // 2 :])]
    ((name, part),) = rows.items()
    middle = (part.start + part.stop) // 2
    return [{name: slice(part.start, middle)}, {name: slice(middle, part.stop)}] if middle > part.start else []
