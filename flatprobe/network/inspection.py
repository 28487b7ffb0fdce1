"""Inspection of a network with its first batch."""

from collections.abc import Iterable
from contextlib import suppress

import torch
from torch import Tensor

from flatprobe.data.inputs import Inputs, default_layout, fix_of_integers, map_tensors, tensors
from flatprobe.network import sequential
from flatprobe.network.contexts import no_autocast
from flatprobe.network.network import Network
from flatprobe.network.storage import storage_of
from flatprobe.network.watching import Observation, ends_in_sigmoid, leaves_of
from flatprobe.network.weights import Weights
from flatprobe.utils.plain_functions import PlainFunctions
from flatprobe.utils.rng import keep_global_states

# Samples of the second pass, and the tolerated difference between two passes relative to the largest logit. Rounding
# differs between batch sizes and layouts; dropout and batch statistics change the logits far more.
_FEW = 4
_COMPANY = 4  # To a smaller batch, other samples are added.
_AGREE = 3e-4
_AGREE_CUDA = 1e-3  # Matrix products on CUDA may keep 10 bits.
_ULPS = 16  # The tolerance in half precision.


def inspect_network(network: Network, inputs: Inputs) -> Tensor:
    """Logits of the first batch, after an inspection of the network.

    A few samples are passed again with other samples beside them, in a watched pass. The network records the findings:
    writes to inputs or weights, the memory layout that it can run in, and the attributes that a pass changes.

    Args:
        network: the network, not inspected yet; the findings decide how later batches are passed.
        inputs: the first batch, from `Network.prepare`.

    Raises:
        ValueError: if the network cannot run on the inputs.
        ValueError: if two passes over the same inputs differ beyond rounding.
        ValueError: if the logits of a sample depend on the other samples of the batch.
    """
    if (known := _inspect_steps(network, inputs)) is not None:
        return known
    network.rest()
    with keep_global_states(), torch.no_grad():
        drawn, before = torch.get_rng_state(), network.slots.attributes()
        last = network.channels_last
        logits, first, clones = _first_pass(network, inputs)
        _check_rows(network, logits, inputs)
        network.seeds = not torch.equal(drawn, torch.get_rng_state())
        network.slots.keep(before)
        network.classes = logits.shape[1] if logits.ndim == 2 else 1
        for company, rows in enumerate(_choose_samples(len(logits))):
            few = map_tensors(lambda part, rows=rows: part[rows.to(part.device)], inputs)  # type: ignore[misc]
            if len(logits) < _COMPANY:
                few = map_tensors(_add_samples, few)
            again = _second_pass(network, few, first, clones) if company == 0 else network(few)
            if last and not network.channels_last:
                return inspect_network(network, inputs)  # Later passes run in the safe layout.
            _check_rows(network, again, few)
            expected = logits[rows.to(logits.device)]
            if _agree(network, again[-len(rows) :], expected):
                continue
            second = network(inputs)
            if not _agree(network, second, logits):
                raise ValueError(_random_message(network, logits, second))
            if network.channels_last and _agree(network, network(few)[-len(rows) :], expected):
                network.lay_out(last=False)  # The code reads strides, so that the layout changes the function.
                return inspect_network(network, inputs)
            raise ValueError(_dependent_message(network, again[-len(rows) :], expected, len(logits)))
    network.caller = None
    network.rest()
    return logits


def _inspect_steps(network: Network, inputs: Inputs) -> Tensor | None:
    """Logits of a network whose function is known without a pass, else None.

    None also where it cannot run on the inputs: the full inspection says why.
    """
    steps = sequential.steps_of(network.slots.module, network.slots.state) if type(inputs) is Tensor else None
    if steps is None:
        return None
    network.steps = steps
    with suppress(RuntimeError, TypeError, IndexError, ValueError), torch.no_grad():
        logits = network(inputs)
        _check_rows(network, logits, inputs)
        network.classes = logits.shape[1] if logits.ndim == 2 else 1
        network.sigmoid = sequential.ends_in_sigmoid(steps)
        network.in_place = network.plain = False
        network.slots.written, network.caller = frozenset(), None
        return logits
    network.steps = None
    return None


def _add_samples(part: Tensor) -> Tensor:
    """The samples of a small batch behind other samples that are made of them."""
    others = part.flip(-1) if part.ndim > 1 else part
    return torch.cat((2 * others if part.is_floating_point() else others, part))


def _choose_samples(count: int) -> list[Tensor]:
    """Two disjoint choices of a few samples, in reverse order."""
    size = count if count < _COMPANY else min(_FEW, count // 2)
    rows = torch.linspace(count - 1, 0, min(2 * size, count), device="cpu").round().long()  # No sample is in both.
    return [rows[::2], rows[1::2]] if count >= _COMPANY else [rows]


def _first_pass(network: Network, inputs: Inputs) -> tuple[Tensor, Observation, Weights]:
    """Logits of the whole batch, the observed pass, and the copies of the weights that it took.

    Raises:
        ValueError: if the network cannot run on the inputs.
    """
    own = network.laid_out(map_tensors(torch.clone, inputs))
    with torch.inference_mode(mode=False):
        clones = {name: value.clone() for name, value in network.slots.state.items()}
    network.in_place, network.slots.written = False, frozenset()  # Inputs and weights are copies already.
    try:
        with Observation(map(storage_of, [*tensors(own), *clones.values()])) as seen:
            logits = network(own, clones)
    except (RuntimeError, TypeError, IndexError) as error:
        if network.channels_last:  # A view of an output as a vector, say, needs the default layout.
            network.lay_out(last=False)
            return _first_pass(network, inputs)
        shapes = ", ".join(f"{tuple(part.shape)} {part.dtype}" for part in tensors(inputs))
        of_bytes = any(part.dtype == torch.uint8 and part.ndim > 2 for part in tensors(inputs))
        fix = fix_of_integers(inputs) if of_bytes else "is this the network for this data?"
        msg = (
            f"{network.name} cannot be run on inputs of shape {shapes} ({error}); expected inputs that the network "
            f"accepts: {fix}"
        )
        raise ValueError(msg) from error
    network.in_place = _has_changed(tensors(own), tensors(inputs), seen)
    return logits, seen, clones


def _has_changed(now: Iterable[Tensor], before: Iterable[Tensor], seen: Observation) -> bool:
    """True if a pass has written to these tensors, through torch or past it."""
    return any(storage_of(a) in seen.written or not _equal(a, b) for a, b in zip(now, before, strict=True))


def _equal(now: Tensor, before: Tensor) -> bool:
    return torch.equal(now, before) or bool(before.isnan().any())  # NaN does not equal itself.


def _check_rows(network: Network, logits: Tensor, inputs: Inputs) -> None:
    given = len(tensors(inputs)[0])
    if len(logits) != given:
        msg = (
            f"the network {network.name} returns {len(logits)} rows of logits for a batch of {given} samples; expected "
            "one row per sample, (batch, classes)"
        )
        raise ValueError(msg)


def _agree(network: Network, logits: Tensor, expected: Tensor) -> bool:
    return agree(logits, expected, network.precisions)


def agree(logits: Tensor, expected: Tensor, precisions: Iterable[torch.dtype]) -> bool:
    """True if logits agree up to rounding in these precisions."""
    coarsest = max(float(torch.finfo(dtype).eps) for dtype in precisions)
    limit = max(_AGREE if logits.device.type == "cpu" else _AGREE_CUDA, _ULPS * coarsest)
    difference = (logits - expected).abs().max()
    # Logits that are not finite are reported where they are measured.
    return not bool(difference > limit * expected.abs().max())


def _random_message(network: Network, first: Tensor, second: Tensor) -> str:
    return (
        f"two passes of {network.name} over the same {len(first)} inputs differ by up to "
        f"{float((first - second).abs().max()):.3g} in the logits; expected a deterministic network in eval mode: "
        "look for dropout or noise applied regardless of the mode (such as F.dropout without training=self.training)"
    )


def _dependent_message(network: Network, few: Tensor, expected: Tensor, count: int) -> str:
    return (
        f"the logits of {network.name} for {len(few)} samples differ by up to "
        f"{float((few - expected).abs().max()):.3g} between a batch of {count} and a batch with other samples; "
        "expected each sample's logits to depend on that sample alone: look for means, maxima or a softmax over the "
        "batch (dim 0), F.batch_norm(training=True), or a recurrent layer without batch_first=True"
    )


def _second_pass(network: Network, few: Inputs, first: Observation, clones: Weights) -> Tensor:
    """Logits of a few samples at the weights themselves, in an observed pass.

    Args:
        network: the network after its first pass.
        few: the samples.
        first: the first pass.
        clones: the copies of the weights that the first pass took.
    """
    caller, slots = network.caller, network.slots
    own = [] if caller is None else [*caller.named_parameters(), *caller.named_buffers()]
    callers = {storage_of(value): name for name, value in own}
    missed = {place: name for name, value in slots.state.items() if (place := storage_of(value)) in first.foreign}
    missed |= {place: name for place, name in callers.items() if place in first.foreign}
    earlier = callers | {storage_of(value): name for name, value in clones.items()}
    remaining = {storage_of(value): value for value in first.remaining()}
    wrote = {name for name, value in slots.state.items() if _has_changed([slots.current(name)], [value], first)}
    with torch.inference_mode(mode=False), torch.enable_grad():
        placed = {
            name: default_layout(value.detach().clone() if name in wrote else value.detach())
            for name, value in slots.state.items()
        }
        for name in slots.parameters:
            placed[name].requires_grad_(placed[name].is_floating_point())
        few = map_tensors(lambda part: part.clone(memory_format=torch.contiguous_format), few)
        network.plain = True
        with slots.lock, no_autocast():
            slots.place(placed)
            with PlainFunctions() as functions, Observation() as seen:
                logits = network.run(few)
    exchanged = {id(value) for value in placed.values()}
    # Leaves that forward makes in order to differentiate, of its inputs say, are not weights.
    passing = seen.made | {*map(storage_of, tensors(few))}
    found = [leaf for leaf in leaves_of(logits) if id(leaf) not in exchanged]
    network.unregistered = [leaf for leaf in found if storage_of(leaf) not in passing]
    missed |= {place: name for place, name in earlier.items() if place in seen.foreign}
    network.fixed = next((name for place, name in missed.items() if place is not None), None)
    network.remembered = [remaining[place] for place in remaining.keys() & seen.foreign]
    network.sigmoid = ends_in_sigmoid(logits)
    network.plain = functions.seen
    looks = seen.looks or first.looks
    # If values decide what the pass does, it may write to another batch.
    network.in_place |= looks or any(storage_of(part) in seen.written for part in tensors(few))
    written = {name for name, value in placed.items() if storage_of(value) in seen.written}
    slots.written = frozenset(
        name
        for name, value in placed.items()
        if name in wrote | written or (looks and name in network.buffers) or slots.was_replaced(name, value)
    )
    for name in written - wrote:
        slots.state[name].copy_(clones[name])
    if seen.unsafe and network.channels_last:
        network.lay_out(last=False)
    return logits.detach()
