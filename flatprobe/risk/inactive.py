"""Entries of the weights that do not act on the logits: unused vocabulary, heads for training only, pruned weights."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from flatprobe.data.inputs import Inputs, map_tensors
from flatprobe.network.weights import Weights
from flatprobe.risk.directions import direction, scale
from flatprobe.risk.empirical import EmpiricalRisk, RiskFunction
from flatprobe.utils import rng
from flatprobe.utils.arguments import one_of

# Samples that are looked at where not all are: with the gradient's pass, at most 3 % of ten directions' on an MLP.
_SAMPLES = 256
# Samples that are passed far away.
_FEW = 32
# The points that are looked at, in distances that move the weights by their own norm. Beside the center no entry has a
# gradient of 0 by coincidence (a factor of 0); further away, on either side, units wake that are off for all samples.
# What has no gradient beside the center is moved from there by so little that no unit wakes.
_BESIDE, _MOVED, _FAR = 1e-2, 1e-4, (10.0, -10.0)
# Forward passes that may be spent on entries without a gradient that act nevertheless.
_TESTS = 64

Masks = dict[str, Tensor]
# Rows of the named parameters, along their first dimension.
Rows = dict[str, slice]


@dataclass(frozen=True)
class Inactive:
    """What does not act.

    Attributes:
        masks: name -> which entries, for the names that have any.
        samples: the first ones of the data, which were looked at.
    """

    masks: Masks
    samples: int

    @property
    def counts(self) -> dict[str, int]:
        """Name -> how many entries."""
        return {name: int(mask.sum()) for name, mask in self.masks.items()}


def inactive_entries(risk: RiskFunction, names: Sequence[str], law: str, *, whole: bool) -> Inactive | None:
    """The entries of the selected weights that the logits do not depend on, where weights move as under the law.

    An entry counts where the gradient of sum_i c_i . z(x_i), c_i random, is exactly 0 at three points: beside the
    center, on all samples that are looked at, and at ten times the weights' length to either side, on a few. A unit
    that is off for all samples at all three counts too. Beside the center they are then moved: what changes a logit
    without having a gradient (`padding_idx`, a forward under `no_grad`) does not count.

    One forward and backward pass of the first few samples where everything acts; otherwise of all that are looked at,
    and a few forward passes.

    Args:
        risk: whose network and data are meant.
        names: the selection; the other weights stay.
        law: of `flatprobe.risk.directions`.
        whole: whether all samples are looked at, or the first 256.

    Returns:
        The entries; None where they are not known: the risk is a function without a network, the network cannot be
        differentiated, or its logits are not finite beside the center.

    Raises:
        ValueError: if nothing moves under the law.
    """
    if not isinstance(risk, EmpiricalRisk):
        return None
    look = _Look(risk, names, law, len(risk.data) if whole else min(_SAMPLES, len(risk.data)))
    try:
        return look.inactive()
    finally:
        risk.network.rest()


def looked_for(risk: RiskFunction, names: Sequence[str], law: str, inactive: str) -> tuple[Inactive | None, Masks]:
    """What does not act, and of it what directions leave out: all for `"hold"`, nothing for `"move"`.

    Raises:
        ValueError: for another word; if entries are to be held and are not known, or are all.
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
    """Something of the selection acts on the logits of some sample.

    One forward and backward pass of a few samples where it does.

    Raises:
        ValueError: if nothing does.
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
        "move; expected a selection that acts: choose others (parameters=None for all), or measure the network in the "
        "form in which these act (adapters before eval() has merged them)"
    )


class _Look:
    """The gradients and differences of the logits of the first samples, at points along one direction of the law."""

    def __init__(self, risk: EmpiricalRisk, names: Sequence[str], law: str, samples: int) -> None:
        self.risk, self.network, self.samples = risk, risk.network, samples
        self.center = risk.center
        self.u = direction(self.center, names, law, 0, -1)
        self.unit = scale(self.center, names, law)
        # A backward pass keeps what a forward pass gives up on its way.
        self.together = max(1, risk.batch_size // 4)
        self.logits: list[Tensor] | None = None  # beside the center, once they are needed

    def inactive(self) -> Inactive | None:
        """See `inactive_entries`."""
        masks = self._whole()
        beside = self._point(_BESIDE)
        for inputs in self._batches():
            if not self._take(inputs, beside, masks):
                return None
            if not masks:
                return Inactive({}, self.samples)
        masks = self._confirmed(beside, masks)
        del beside
        few = map_tensors(lambda part: part[:_FEW], next(self._batches()))
        for distance in _FAR:
            if masks:
                self._take(few, self._point(distance), masks)
        return Inactive(masks, self.samples)

    def anything_acts(self) -> bool:
        """Whether any entry has a gradient beside the center, or changes a logit there."""
        beside, masks = self._point(_BESIDE), self._whole()
        for inputs in self._batches():
            slopes = self._slopes(inputs, beside, masks)
            if slopes is None or any(bool((slope != 0).any()) for slope in slopes.values()):
                return True
        return self._differs(beside, masks, {name: slice(None) for name in masks})

    def _whole(self) -> Masks:
        floating = [name for name in self.u if self.center[name].is_floating_point()]
        return {name: torch.ones_like(self.center[name], dtype=torch.bool) for name in floating}

    def _batches(self) -> Iterator[Inputs]:
        for positions in torch.split(torch.arange(self.samples, device="cpu"), self.together):
            yield self.network.prepare(self.risk.data.gather(positions)[0])

    def _point(self, distance: float) -> Weights:
        return {name: torch.add(self.center[name], value, alpha=distance * self.unit) for name, value in self.u.items()}

    def _slopes(self, inputs: Inputs, point: Weights, names: Iterable[str]) -> Weights | None:
        """The gradients that arrive, by name; None where there are none, or a logit is not finite.

        Raises:
            RuntimeError: where memory runs out.
        """
        with torch.enable_grad():
            variables = {name: point[name].detach().requires_grad_() for name in names}
            logits = self.network(inputs, {**point, **variables})
            if not bool(logits.isfinite().all()):
                return None
            if not logits.requires_grad:
                return {}
            cotangent = rng.normal(logits.shape, "inactive").to(logits)
            along = (logits * cotangent).sum()
            try:
                slopes = torch.autograd.grad(along, list(variables.values()), allow_unused=True)
            except RuntimeError as error:
                if isinstance(error, torch.OutOfMemoryError) or "allocate" in str(error):
                    raise
                return None  # no derivative, which the probes that do without it do not need
        found = zip(variables, slopes, strict=True)
        # Embeddings' may be sparse.
        return {name: slope.to_dense() for name, slope in found if slope is not None}  # type: ignore[redundant-expr]

    def _take(self, inputs: Inputs, point: Weights, masks: Masks) -> bool:
        """Take what has a gradient there out of the masks; False, and nothing taken, where that is not known."""
        slopes = self._slopes(inputs, point, masks)
        for name, slope in (slopes or {}).items():
            masks[name] = masks[name] & (slope == 0)
            if not bool(masks[name].any()):
                del masks[name]
        return slopes is not None

    def _confirmed(self, beside: Weights, masks: Masks) -> Masks:
        """The masks without the rows that change a logit: found by halving what does until it is one row."""
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

    def _differs(self, beside: Weights, masks: Masks, rows: Rows) -> bool:
        """Whether a logit changes when these entries move, beyond rounding."""
        moved = dict(beside)
        for name, part in rows.items():
            moved[name] = beside[name].clone()
            own = masks[name].to(self.u[name])
            _rows(moved[name])[part].addcmul_(_rows(self.u[name])[part], _rows(own)[part], value=_MOVED * self.unit)
        with torch.no_grad():
            if self.logits is None:
                self.logits = [self.network(inputs, beside) for inputs in self._batches()]
            for inputs, logits in zip(self._batches(), self.logits, strict=True):
                others = self.network(inputs, moved)
                limit = 4 * torch.finfo(logits.dtype).eps * logits.abs().max()
                if not bool((others - logits).abs().max() <= limit):
                    return True
        return False


def _rows(value: Tensor) -> Tensor:
    """A view whose first dimension can be cut."""
    return value if value.ndim else value[None]


def _halves(rows: Rows) -> list[Rows]:
    """Half of the names each, or half of one name's rows; nothing of a single row."""
    if len(rows) > 1:
        names = list(rows)
        return [{name: rows[name] for name in half} for half in (names[: len(names) // 2], names[len(names) // 2 :])]
    ((name, part),) = rows.items()
    middle = (part.start + part.stop) // 2
    return [{name: slice(part.start, middle)}, {name: slice(middle, part.stop)}] if middle > part.start else []
