"""Batch sizes by architecture and device, and by the bytes that a sample takes."""

from typing import Any

import torch
from torch import Tensor

from flatprobe.data import LabelledData
from flatprobe.data.inputs import few_rows, tensors
from flatprobe.network.storage import storage_of
from flatprobe.utils.memory import samples_within
from flatprobe.utils.rng import keep_global_states

# Samples per forward pass, by (architecture, device type). A fixed table lets results repeat, unlike a timing at run
# time. The rows of the CPU follow `python -m tests.benchmarks batch_size`; those of the GPU are not measured yet.
# The rows for tokens bound the memory: 512 tokens of one sample take as much as 512 samples of a dense network.
BATCH_SIZES = {
    ("dense", "cpu"): 512,
    ("convolutional", "cpu"): 64,
    ("tokens", "cpu"): 32,
    ("dense", "cuda"): 8192,
    ("convolutional", "cuda"): 1024,
    ("tokens", "cuda"): 256,
}


def default_batch_size(network: Any, data: LabelledData | None) -> int:
    """Batch size of `BATCH_SIZES`; on a GPU, at most what fits into `BATCH_BYTES`.

    Args:
        network: a `Network`, whose file imports this one.
        data: the samples; None for the table alone.
    """
    size = BATCH_SIZES.get((network.architecture, network.device.type), BATCH_SIZES[network.architecture, "cpu"])
    if network.device.type == "cpu" or data is None:
        return size
    return samples_within(bytes_per_sample(network, data), size)


def bytes_per_sample(network: Any, data: LabelledData) -> int:
    """Bytes of the inputs and of what a forward pass stores for its backward pass, per sample.

    Cost: 1 forward pass of 4 samples by a copy of the network, since it is not inspected yet.

    Args:
        network: the network; its weights do not count.
        data: the samples.

    Returns:
        The bytes, rounded up; those of the inputs alone for a network that cannot run on them, which the check of the
        first batch reports.
    """
    copied = network.copy()
    copied.in_place, copied.slots.written = False, frozenset()  # Inputs and weights are copies already.
    inputs = copied.prepare(data.gather(few_rows(len(data)))[0])
    stored = {storage_of(part): part.nbytes for part in tensors(inputs)}
    own = {storage_of(value) for value in copied.weights.values()}

    def count(value: Tensor) -> Tensor:
        if storage_of(value) not in own:
            stored[storage_of(value)] = value.untyped_storage().nbytes()
        return value

    with torch.inference_mode(mode=False), torch.enable_grad(), keep_global_states():
        leaves = {
            name: value.detach().requires_grad_(value.is_floating_point()) for name, value in copied.weights.items()
        }
        with torch.autograd.graph.saved_tensors_hooks(count, lambda value: value):
            try:
                logits = copied(inputs, leaves)  # Held until the count is complete, with all that it stores.
            except (RuntimeError, TypeError, IndexError, ValueError):
                logits = None
        del logits
    return -(-sum(stored.values()) // len(tensors(inputs)[0]))
