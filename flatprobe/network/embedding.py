"""Input-space probes of a network whose inputs are integers: its embeddings take their place."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from flatprobe.data import LabelledData, check_data, parts_of
from flatprobe.data.inputs import Inputs, fix_of_integers, map_tensors, tensors
from flatprobe.network.contexts import standalone
from flatprobe.network.copies import structural_copy
from flatprobe.network.inspection import inspected
from flatprobe.network.network import Network

# Embedded samples up to this size (bytes) are held in memory, more are embedded anew at every pass: a fixed bound, so
# that which it is never depends on the machine. 1,000 texts of 128 tokens of width 768 are 0.37 GiB.
_HELD = 2**30
_PROBED = 16  # samples that are passed to find the layer
_KEY = "embeddings"


class AtEmbedding(nn.Module):
    """The network as a function of what one of its embedding layers returns: (embeddings, *inputs) -> logits.

    The inputs are passed on beside the embeddings: masks, and the integers themselves, from which networks read
    lengths, padding and positions. The layer's own table is no parameter of it.

    Args:
        network: is changed: the layer is replaced.
        layer: the embedding layer, one of the network's modules.
    """

    def __init__(self, network: nn.Module, layer: nn.Module) -> None:
        super().__init__()
        self._given = _Given(layer)
        places = [name for name, found in network.named_modules(remove_duplicate=False) if found is layer]
        for place in places:
            parent, _, name = place.rpartition(".")
            network.get_submodule(parent).register_module(name, self._given)
        self.network = network
        self.eval()

    def forward(self, embeddings: Tensor, *inputs: Tensor, **named: Tensor) -> Any:
        """What the network returns for the inputs if their embeddings are these."""
        self._given.value = embeddings
        try:
            return self.network(*inputs, **named)
        finally:
            self._given.value = None


class _Given(nn.Module):
    """In the place of an embedding layer: returns what it is given, whatever it is asked for."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.value: Tensor | None = None
        for name in ("padding_idx", "num_embeddings", "embedding_dim"):  # which networks look at
            setattr(self, name, getattr(layer, name, None))
        weight = getattr(layer, "weight", None)
        self.table = weight.detach() if isinstance(weight, Tensor) else None

    @property
    def weight(self) -> Tensor | None:
        return self.table

    def forward(self, *_args: Any, **_kwargs: Any) -> Tensor:
        assert self.value is not None  # it is called within AtEmbedding.forward only
        return self.value


class _Embedded(Dataset[tuple[Inputs, int]]):
    """The samples with their embeddings, each embedded when it is read."""

    def __init__(self, data: LabelledData, layer: nn.Module, place: int) -> None:
        self.data, self.layer, self.place = data, layer, place

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> tuple[Inputs, int]:
        inputs, label = self.data.gather(torch.tensor([index], device="cpu"))
        return map_tensors(lambda part: part[0], _beside(inputs, self.layer, self.place)), int(label)


@standalone
def at_embedding(
    model: nn.Module, data: LabelledData, *, embedding: str | None = None
) -> tuple[AtEmbedding, LabelledData]:
    """f = g o E, E the embedding of the tokens: g, and the samples E(x) that it is a function of, in the same order.

    g(E(x)) = f(x) for every sample. Input-space probes of g move the token embeddings, (tokens, width) a sample, and
    hold all else that belongs to the sample: masks, token types, and the integers themselves, from which positions and
    padding are read. Perturbations and Jacobians are in units of the embeddings, which differ between networks.
    Weight-space probes need none of this: they take the network and its integers as they are.

    The layer is found by one pass of 16 samples, and g is checked against f on them. The embedded samples are held in
    memory up to 1 GiB; beyond it each is embedded when it is read.

    Args:
        model: a classifier in eval mode whose inputs are integers; never changed: g is made of a copy.
        data: its inputs (a tensor, or a dict or tuple of tensors, none of them floating) and labels.
        embedding: the layer's name; None (default) takes what `model.get_input_embeddings()` returns (transformers),
            else the only `nn.Embedding` that is fed one of the inputs.

    Returns:
        g, in eval mode, and data whose samples are (embedding, input) or (embedding, *inputs), or a dict with the
        embedding as "embeddings".

    Raises:
        TypeError: if an input is floating.
        ValueError: if the layer is unknown or cannot be told, if it is not fed one of the inputs exactly once, or if g
            at its output is another function; for a network or data that cannot be probed.

    >>> ids = torch.tensor([[0, 2], [1, 1]])
    >>> model = nn.Sequential(nn.Embedding(3, 4), nn.Flatten(), nn.Linear(8, 2)).eval()
    >>> at_embedding(model, LabelledData(ids, torch.tensor([0, 1])))[1]
    LabelledData(2 samples of {'inputs[0]': (2, 4), 'inputs[1]': (2,)}, 2 classes, in memory)
    """
    data = check_data(data)
    first = next(iter(data.batches(_PROBED))).inputs
    for name, part in parts_of(first).items():
        if part.is_floating_point():
            msg = (
                f"{name} is floating ({part.dtype}); expected integers, which are embedded: measure the network itself "
                "if this is what is to move, or give a mask as integers or booleans"
            )
            raise TypeError(msg)
    module = structural_copy(model)
    network = Network(module)
    prepared = network.prepare(first)
    expected = inspected(network, prepared)
    name, layer, place = _found(network, prepared, embedding)
    layer = module.get_submodule(name).requires_grad_(requires_grad=False)
    wrapped = AtEmbedding(module, layer)
    _check_same(wrapped, _beside(prepared, layer, place), expected, name)
    source = {**data.source, "at_embedding": name}
    embedded = _Embedded(data, layer, place)
    size = tensors(embedded[0][0])[0].nbytes * len(data)
    if size > _HELD:
        return wrapped, LabelledData.from_dataset(embedded, labels=data.labels, classes=data.classes, source=source)
    batches = [_beside(batch.inputs, layer, place) for batch in data.batches(network.batch_size())]
    return wrapped, LabelledData(_joined(batches), data.labels, classes=data.classes, source=source)


def _found(network: Network, inputs: Inputs, embedding: str | None) -> tuple[str, nn.Module, int]:
    """The embedding layer's name, itself, and the place of the input that it is fed.

    Raises:
        ValueError: where there is not exactly one.
    """
    layers = {name: layer for name, layer in network.module.named_modules() if name}
    tables = [name for name, layer in layers.items() if isinstance(layer, nn.Embedding)]
    if embedding is not None and embedding not in layers:
        msg = f"the network has no layer {embedding!r}; its embedding layers are {', '.join(tables) or 'none'}"
        raise ValueError(msg)
    own = getattr(network.module, "get_input_embeddings", lambda: None)()
    candidates = [name for name, layer in layers.items() if layer is own] or tables
    fed = _fed(network, inputs, candidates if embedding is None else [embedding])
    if len(fed) != 1:
        looked = ", ".join(map(repr, candidates if embedding is None else [embedding])) or "there is no nn.Embedding"
        several = f"{', '.join(map(repr, fed))} are" if fed else "none is"
        msg = (
            f"of the embedding layers of the network ({looked}) {several} fed one of the inputs, once a pass; expected "
            "exactly one: name it with embedding=, or wrap the network so that it takes LabelledData of its embeddings"
        )
        if not tables and any(part.dtype == torch.uint8 and part.ndim > 2 for part in tensors(inputs)):
            msg = f"the inputs are bytes in a picture's shape and the network embeds nothing; {fix_of_integers(inputs)}"
        raise ValueError(msg)
    ((name, place),) = fed.items()
    return name, layers[name], place


def _fed(network: Network, inputs: Inputs, names: list[str]) -> dict[str, int]:
    """Those of the layers that are called once, with one of the inputs as it is, and its place."""
    calls: dict[str, list[Tensor]] = {name: [] for name in names}

    def seen(name: str) -> Any:
        return lambda _layer, args, kwargs: calls[name].append(next(iter((*args, *kwargs.values()))))

    layers = [(name, network.module.get_submodule(name)) for name in names]
    hooks = [layer.register_forward_pre_hook(seen(name), with_kwargs=True) for name, layer in layers]
    with torch.no_grad():
        network(inputs)
    for hook in hooks:
        hook.remove()
    parts = tensors(inputs)
    found = {}
    for name, given in calls.items():
        equal = [place for place, part in enumerate(parts) if len(given) == 1 and _equal(given[0], part)]
        # Two inputs may hold the same numbers (a mask of ones, say): then it is the one in the same memory.
        same = [place for place in equal if given[0].data_ptr() == parts[place].data_ptr()]
        if len(same or equal) == 1:
            found[name] = (same or equal)[0]
    return found


def _equal(given: object, part: Tensor) -> bool:
    return isinstance(given, Tensor) and given.shape == part.shape and torch.equal(given.to(part.dtype), part)


def _beside(inputs: Inputs, layer: nn.Module, place: int) -> Inputs:
    """The inputs with the embedding of one of them as one more, the first."""
    ids = tensors(inputs)[place]
    device = next((parameter.device for parameter in layer.parameters()), ids.device)
    with torch.no_grad():
        embeddings = layer(ids.to(device)).to(ids.device)
    return {_KEY: embeddings, **inputs} if isinstance(inputs, dict) else (embeddings, *tensors(inputs))


def _joined(batches: list[Inputs]) -> Inputs:
    parts: Iterator[tuple[Tensor, ...]] = zip(*map(tensors, batches), strict=True)
    whole = [torch.cat(part) for part in parts]
    first = batches[0]
    return dict(zip(first, whole, strict=True)) if isinstance(first, dict) else tuple(whole)


def _check_same(wrapped: AtEmbedding, inputs: Inputs, expected: Tensor, name: str) -> None:
    """The wrapped network gives the network's own logits.

    Raises:
        ValueError: where it does not.
    """
    network = Network(wrapped)
    found = inspected(network, network.prepare(inputs))
    difference = (found - expected).abs().max()
    if difference > 1e-3 * expected.abs().max():
        msg = (
            f"at the output of {name!r} the logits differ by up to {float(difference):.3g} from the network's own; "
            "expected a layer that sees one input and nothing else: name the embedding of the tokens with embedding="
        )
        raise ValueError(msg)
