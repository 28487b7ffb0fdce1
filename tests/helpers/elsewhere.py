"""A device that is not the CPU, on a machine that has none: tensors that report it and compute on the CPU.

It follows the rules of CUDA on mixed devices, and counts what would make the host wait for a GPU. The device is `meta`,
the only one beside the CPU on which a CPU build of torch runs backward passes; the tensors have values all the same.
"""

import copy
from collections import Counter
from functools import cache
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

DEVICE = torch.device("meta")
CPU = torch.device("cpu")

# Operations whose result the host reads, or whose shape depends on values.
_WAITS = {"_local_scalar_dense", "equal", "nonzero", "masked_select", "_unique2", "unique_consecutive", "bincount"}
# Operations that may take tensors of both devices.
_MIXED = {"copy_", "copy", "_to_copy", "_copy_from", "_copy_from_and_resize"}
_INDEXED = {"index", "index_put", "index_put_", "_index_put_impl_", "_unsafe_index", "_unsafe_index_put"}
_SCALARS = {"masked_fill", "masked_fill_", "fill_", "fill", "index_fill", "index_fill_", "lerp", "lerp_"}


class Remote(Tensor):
    """A tensor elsewhere, around the CPU tensor with its values."""

    held: Tensor
    is_meta = False

    @staticmethod
    def __new__(cls, held: Tensor) -> "Remote":
        result: Remote = torch.Tensor._make_wrapper_subclass(
            cls,
            held.shape,
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            device=DEVICE,
        )
        result.held = held
        return result

    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {}, Counter())

    def __tensor_flatten__(self) -> tuple[list[str], None]:
        return ["held"], None

    @staticmethod
    def __tensor_unflatten__(parts: dict[str, Tensor], _context: Any, _size: Any, _stride: Any) -> "Remote":
        return Remote(parts["held"])

    def untyped_storage(self) -> torch.UntypedStorage:
        return self.held.untyped_storage()

    def data_ptr(self) -> int:
        return self.held.data_ptr()

    def numpy(self, **_options: Any) -> Any:
        msg = "can't convert a tensor elsewhere to numpy. Use Tensor.cpu() first"
        raise TypeError(msg)

    def __array__(self, dtype: Any = None) -> Any:
        return self.numpy()

    def tolist(self) -> Any:
        return self.cpu().tolist()

    def __repr__(self) -> str:  # type: ignore[override]
        return f"Remote({self.held!r})"


class Elsewhere(TorchDispatchMode):
    """Within it, torch knows `DEVICE`; `waits` counts the host's waits by name, `uploads` the copies to the device."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()
        self._tensors = _Constructors()
        known = torch.is_autocast_enabled  # which refuses the name of the device
        self._autocast = patch("torch.is_autocast_enabled", lambda kind: kind != DEVICE.type and known(kind))

    @property
    def waits(self) -> dict[str, int]:
        """Operation -> number of times that the host waits for it."""
        return {name: count for name, count in self.counts.items() if name != "upload"}

    def __enter__(self) -> "Elsewhere":
        self._autocast.start()
        self._tensors.__enter__()
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self._tensors.__exit__(*error)
        self._autocast.stop()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {}, self.counts)


class _Constructors(TorchFunctionMode):
    """Tensors from numbers, also from a list in an index, which have no values on the meta device."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in {torch.tensor, torch.as_tensor} and _elsewhere(kwargs.get("device")):
            return func(*args, **{**kwargs, "device": CPU}).to(DEVICE)
        if func is Tensor.new_tensor and isinstance(args[0], Remote) and "device" not in kwargs:
            return torch.tensor(*args[1:], **{"dtype": args[0].dtype, **kwargs, "device": CPU}).to(DEVICE)
        if func in {Tensor.__getitem__, Tensor.__setitem__} and isinstance(args[0], Remote):
            places = tuple(map(_as_positions, args[1])) if isinstance(args[1], tuple) else _as_positions(args[1])
            args = (args[0], places, *args[2:])
        return func(*args, **kwargs)


def move(module: nn.Module) -> nn.Module:
    """A copy of a module, with its parameters and buffers elsewhere."""
    result = copy.deepcopy(module)
    for layer in result.modules():
        for name, value in layer._parameters.items():
            if value is not None:
                layer._parameters[name] = nn.Parameter(Remote(value.detach()), value.requires_grad)
        for name, buffer in layer._buffers.items():
            if buffer is not None:
                layer._buffers[name] = Remote(buffer)
    return result


def _held(value: Any) -> Any:
    """The same arguments with the CPU tensors in the place of those elsewhere; torch's `tree_map` takes longer."""
    if isinstance(value, Remote):
        return value.held
    return type(value)(map(_held, value)) if type(value) in {list, tuple} else value


def _tensors_in(values: Any, found: list[Tensor]) -> list[Tensor]:
    for value in values:
        if isinstance(value, Tensor):
            found.append(value)
        elif isinstance(value, list | tuple):
            _tensors_in(value, found)
    return found


@cache
def _name_of(func: Any) -> str:
    return str(func._schema.name.removeprefix("aten::"))


def _as_positions(place: Any) -> Any:
    return torch.tensor(place, device=CPU) if isinstance(place, list) else place


def _elsewhere(device: Any) -> bool:
    return device is not None and torch.device(device) == DEVICE


def _run(func: Any, args: Any, kwargs: dict[str, Any], counts: Counter[str]) -> Any:
    leaves = _tensors_in(args, [])
    if kwargs:
        _tensors_in(kwargs.values(), leaves)
    remote = [leaf for leaf in leaves if isinstance(leaf, Remote)]
    target = kwargs.get("device")
    if not remote and not _elsewhere(target):
        return func(*args, **kwargs)
    name = _name_of(func)
    if len(remote) < len(leaves):
        _check_devices(func, name, args, leaves)
    if kwargs.get("generator") is not None:
        msg = f"Expected a generator elsewhere, but found one of the cpu in {name}"
        raise RuntimeError(msg)
    _count(name, args, target, leaves, remote, counts)
    home = (target is not None and not _elsewhere(target)) or (name == "copy_" and not isinstance(args[0], Remote))
    own = {key: CPU if key == "device" else _held(value) for key, value in kwargs.items()}
    result = func(*map(_held, args), **own)
    if home:
        return result.clone() if any(result is leaf.held for leaf in remote) else result
    return _wrapped(result, {id(leaf.held): leaf for leaf in remote})


def _wrapped(result: Any, owners: dict[int, Remote]) -> Any:
    """The result elsewhere: that of an operation in place is the tensor that it was given."""
    if isinstance(result, Tensor):
        return owners[id(result)] if id(result) in owners else Remote(result)
    return type(result)(_wrapped(part, owners) for part in result) if type(result) in {list, tuple} else result


def _count(name: str, args: Any, target: Any, leaves: list[Tensor], remote: list[Remote], counts: Counter[str]) -> None:
    masks = name in _INDEXED and any(part is not None and part.dtype in {torch.bool, torch.uint8} for part in args[1])
    if name in _WAITS or masks:
        counts["nonzero" if masks else name] += 1
    elif name == "_to_copy" and remote and target is not None and not _elsewhere(target):
        counts["to the host"] += 1
    elif name == "copy_" and len(remote) == 1 and len(leaves) == 2:
        counts["upload" if isinstance(args[0], Remote) else "to the host"] += 1
    elif name == "_to_copy" and not remote:
        counts["upload"] += 1


def _check_devices(func: Any, name: str, args: Any, leaves: list[Tensor]) -> None:
    """Torch's refusal to compute with tensors of two devices, but for scalars and the positions of an index.

    Raises:
        RuntimeError: for two devices.
    """
    local = [leaf for leaf in leaves if not isinstance(leaf, Remote)]
    if name in _MIXED or not local:
        return
    if name in _INDEXED and isinstance(args[0], Remote):
        indices = [id(part) for part in args[1]]
        local = [leaf for leaf in local if id(leaf) not in indices]
    writes = func._schema.is_mutable and args and isinstance(args[0], Tensor) and not isinstance(args[0], Remote)
    scalars = torch.Tag.pointwise in func.tags or name in _INDEXED | _SCALARS
    if writes or any(leaf.ndim or not scalars for leaf in local):
        shapes = [(type(leaf).__name__, tuple(leaf.shape)) for leaf in leaves]
        msg = f"Expected all tensors to be on the same device in {name}, but found two devices: {shapes}"
        raise RuntimeError(msg)
