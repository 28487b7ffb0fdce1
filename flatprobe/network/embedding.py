"""Input-space probes at the embeddings of a network whose inputs are integers."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from flatprobe.data import LabelledData, check_data, parts_of
from flatprobe.data.inputs import Inputs, fix_of_integers, map_tensors, tensors
from flatprobe.network.contexts import standalone
from flatprobe.network.copies import structural_copy
from flatprobe.network.inspection import inspect_network
from flatprobe.network.network import Network

# Embedded samples up to this size (bytes) stay in memory, and larger ones are embedded anew at every pass. The bound is
# fixed, so that no result depends on the machine. 1,000 texts of 128 tokens of width 768 are 0.37 GiB.
_HELD = 2**30
_PROBED = 16  # Samples of the pass that finds the layer.
_KEY = "embeddings"


class AtEmbedding(nn.Module):
    """A network from embeddings to logits: (embeddings, *inputs) -> logits.

    The network also receives the inputs: masks, and the integers, from which networks read lengths, padding and
    positions. The table of the embedding layer is not a parameter of this module.

    Args:
        network: the network; it is changed, since its embedding layer is replaced.
        layer: the embedding layer, a module of the network.
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
        """Output of the network for the inputs with these embeddings."""
        self._given.value = embeddings
        try:
            return self.network(*inputs, **named)
        finally:
            self._given.value = None


class _Given(nn.Module):
    """Substitute of an embedding layer: returns the given embeddings for any input."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.value: Tensor | None = None
        for name in ("padding_idx", "num_embeddings", "embedding_dim"):  # Networks read these.
            setattr(self, name, getattr(layer, name, None))
        weight = getattr(layer, "weight", None)
        self.table = weight.detach() if isinstance(weight, Tensor) else None

    @property
    def weight(self) -> Tensor | None:
        return self.table

    def forward(self, *_args: Any, **_kwargs: Any) -> Tensor:
        assert self.value is not None  # Only AtEmbedding.forward calls it.
        return self.value


class _Embedded(Dataset[tuple[Inputs, int]]):
    """Samples with their embeddings, each computed when it is read."""

    def __init__(self, data: LabelledData, layer: nn.Module, place: int) -> None:
        self.data, self.layer, self.place = data, layer, place

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> tuple[Inputs, int]:
        inputs, label = self.data.gather(torch.tensor([index], device="cpu"))
        return map_tensors(lambda part: part[0], _add_embeddings(inputs, self.layer, self.place)), int(label)


@standalone
def at_embedding(
    model: nn.Module, data: LabelledData, *, embedding: str | None = None
) -> tuple[AtEmbedding, LabelledData]:
    """Network g and samples E(x) of a network f = g o E with token embedding E.

    g(E(x)) = f(x) for every sample x. Input-space probes of g move the token embeddings, (tokens, width) per sample.
    They keep the other inputs of the sample: masks, token types and the integers, from which networks read positions
    and padding. Perturbations and Jacobians are in units of the embeddings, which differ between networks. Weight-space
    probes take f and its integer inputs directly.

    One pass of 16 samples finds the layer, and g is compared with f on them. The embedded samples stay in memory up to
    1 GiB; beyond it, each sample is embedded when it is read.

    Args:
        model: a classifier in eval mode with integer inputs; never changed, since g is made of a copy.
        data: inputs (a tensor, or a dict or tuple of tensors, none of them floating) and labels.
        embedding: the name of the embedding layer. None (default) takes the layer that `model.get_input_embeddings()`
            returns (transformers), or else the only `nn.Embedding` that receives one of the inputs.

    Returns:
        g, in eval mode, and the data in the same order. Its samples are (embedding, input), (embedding, *inputs), or a
        dict with the embedding as "embeddings".

    Raises:
        TypeError: if an input is floating.
        ValueError: if the layer does not exist, or if several layers are possible.
        ValueError: if the layer does not receive one of the inputs exactly once.
        ValueError: if g differs from f.
        ValueError: for a network or data that cannot be probed.

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
                "to move this input, or give a mask as integers or booleans"
            )
            raise TypeError(msg)
    module = structural_copy(model)
    network = Network(module)
    prepared = network.prepare(first)
    expected = inspect_network(network, prepared)
    name, layer, place = _find_layer(network, prepared, embedding)
    layer = module.get_submodule(name).requires_grad_(requires_grad=False)
    wrapped = AtEmbedding(module, layer)
    _check_same(wrapped, _add_embeddings(prepared, layer, place), expected, name)
    source = {**data.source, "at_embedding": name}
    embedded = _Embedded(data, layer, place)
    size = tensors(embedded[0][0])[0].nbytes * len(data)
    if size > _HELD:
        return wrapped, LabelledData.from_dataset(embedded, labels=data.labels, classes=data.classes, source=source)
    batches = [_add_embeddings(batch.inputs, layer, place) for batch in data.batches(network.batch_size())]
    return wrapped, LabelledData(_concatenate(batches), data.labels, classes=data.classes, source=source)


def _find_layer(network: Network, inputs: Inputs, embedding: str | None) -> tuple[str, nn.Module, int]:
    """The embedding layer with its name, and the position of its input.

    Raises:
        ValueError: unless there is exactly one such layer.
    """
    layers = {name: layer for name, layer in network.module.named_modules() if name}
    tables = [name for name, layer in layers.items() if isinstance(layer, nn.Embedding)]
    if embedding is not None and embedding not in layers:
        msg = f"the network has no layer {embedding!r}; its embedding layers are {', '.join(tables) or 'none'}"
        raise ValueError(msg)
    own = getattr(network.module, "get_input_embeddings", lambda: None)()
    candidates = [name for name, layer in layers.items() if layer is own] or tables
    fed = _find_fed(network, inputs, candidates if embedding is None else [embedding])
    if len(fed) != 1:
        names = f": {', '.join(map(repr, fed))}" if fed else ""
        looked = ", ".join(map(repr, candidates if embedding is None else [embedding])) or "there is no nn.Embedding"
        msg = (
            f"{len(fed)} of the embedding layers of the network ({looked}) receive one of the inputs once per pass"
            f"{names}; expected exactly one: name it with embedding=, or wrap the network so that it takes "
            "LabelledData of its embeddings"
        )
        if not tables and any(part.dtype == torch.uint8 and part.ndim > 2 for part in tensors(inputs)):
            msg = f"the inputs are bytes of images and the network embeds nothing; {fix_of_integers(inputs)}"
        raise ValueError(msg)
    ((name, place),) = fed.items()
    return name, layers[name], place


def _find_fed(network: Network, inputs: Inputs, names: list[str]) -> dict[str, int]:
    """Layers that are called once with an input, and the position of the input."""
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
        # Two inputs may hold equal numbers, such as a mask of ones: the one in the same memory is meant.
        same = [place for place in equal if given[0].data_ptr() == parts[place].data_ptr()]
        if len(same or equal) == 1:
            found[name] = (same or equal)[0]
    return found


def _equal(given: object, part: Tensor) -> bool:
    return isinstance(given, Tensor) and given.shape == part.shape and torch.equal(given.to(part.dtype), part)


def _add_embeddings(inputs: Inputs, layer: nn.Module, place: int) -> Inputs:
    """The inputs behind the embedding of one of them."""
    ids = tensors(inputs)[place]
    device = next((parameter.device for parameter in layer.parameters()), ids.device)
    with torch.no_grad():
        embeddings = layer(ids.to(device)).to(ids.device)
    return {_KEY: embeddings, **inputs} if isinstance(inputs, dict) else (embeddings, *tensors(inputs))


def _concatenate(batches: list[Inputs]) -> Inputs:
    parts: Iterator[tuple[Tensor, ...]] = zip(*map(tensors, batches), strict=True)
    whole = [torch.cat(part) for part in parts]
    first = batches[0]
    return dict(zip(first, whole, strict=True)) if isinstance(first, dict) else tuple(whole)


def _check_same(wrapped: AtEmbedding, inputs: Inputs, expected: Tensor, name: str) -> None:
    """Check that the wrapped network returns the logits of the network.

    Raises:
        ValueError: if the logits differ.
    """
    network = Network(wrapped)
    found = inspect_network(network, network.prepare(inputs))
    difference = (found - expected).abs().max()
    if difference > 1e-3 * expected.abs().max():
        msg = (
            f"with the output of {name!r} as input, the logits differ by up to {float(difference):.3g} from those of "
            "the network; expected a layer that reads one input alone: name the token embedding with embedding="
        )
        raise ValueError(msg)
