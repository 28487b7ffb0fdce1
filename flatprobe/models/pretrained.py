"""Networks from folders of transformers, whose weights are read without code."""

import functools
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from flatprobe.models.folders import WHOLE
from flatprobe.utils.contents import check_dense, read_contents
from flatprobe.utils.rng import keep_global_states
from flatprobe.utils.tensor_files import State, is_index, shards, within

_KINDS = {
    "ForImageClassification": "AutoModelForImageClassification",
    "ForSequenceClassification": "AutoModelForSequenceClassification",
    "ForTokenClassification": "AutoModelForTokenClassification",
    "ForCausalLM": "AutoModelForCausalLM",
    "LMHeadModel": "AutoModelForCausalLM",
}
_ADAPTER = "adapter_config.json"
_EXPECTED = "expected what save_pretrained wrote"


def is_readable(config: Mapping[str, Any]) -> bool:
    """True if the folder's architecture is one that `load_pretrained` reads."""
    return _kind(_architecture(config)) is not None


def _architecture(config: Mapping[str, Any]) -> str:
    names = config.get("architectures") or ["network without an architecture"]
    return names[0] if isinstance(names, list) and isinstance(names[0], str) else f"network of {names!r}"


def _kind(name: str) -> str | None:
    return next((auto for ending, auto in _KINDS.items() if name.endswith(ending)), None)


def load_pretrained(folder: Path, config: Mapping[str, Any]) -> nn.Module:
    """The network of a transformers folder, in the checkpoint's dtype.

    transformers reads the files. The files are checked here first, since a folder can name others.

    Args:
        folder: folder with config.json and the weights.
        config: content of config.json.

    Raises:
        ImportError: if transformers is not installed.
        ValueError: if the folder holds another kind of network, cannot be read, names code or files in other folders,
            or lacks weights, which transformers would draw at random.
    """
    name = _architecture(config)
    kind = _kind(name)
    if kind is None:
        msg = f"{folder} holds a {name[:200]}; expected one of ...{', ...'.join(_KINDS)}, which return logits"
        raise ValueError(msg)
    try:
        import transformers
    except ImportError as error:
        msg = f"{folder} was written by transformers, which is not installed: pip install transformers"
        raise ImportError(msg) from error
    state = _checked(folder, config)
    own = {"local_files_only": True, "trust_remote_code": False}
    with keep_global_states(), _no_progress_bar():
        try:
            if state is None:
                network, report = getattr(transformers, kind).from_pretrained(
                    folder, dtype="auto", use_safetensors=True, output_loading_info=True, **own
                )
            else:  # pickles are read here, and by torch's weights-only unpickler
                settings = transformers.AutoConfig.from_pretrained(folder, **own)
                network, report = _class(name).from_pretrained(
                    None, config=settings, state_dict=state, dtype=dtype_of(state), output_loading_info=True
                )
        except Exception as error:  # an unexpected config.json can raise any exception
            msg = f"transformers cannot load {folder} ({type(error).__name__}: {error}); {_EXPECTED}"
            raise ValueError(msg) from error
    if lacking := sorted(report["missing_keys"]):
        few = ", ".join(lacking[:5]) + (", ..." if len(lacking) > 5 else "")
        msg = (
            f"{folder} lacks {len(lacking)} weights of its {name}: {few}; expected all of them: it may "
            "be the base of a network whose classifier was never trained"
        )
        raise ValueError(msg)
    classifier: nn.Module = network
    return classifier


@contextmanager
def _no_progress_bar() -> Iterator[None]:
    """Loading without the progress bar of transformers."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()  # type: ignore[no-untyped-call]


def _class(name: str) -> Any:
    """The class of transformers with that name.

    Raises:
        ValueError: if transformers has no such network.
    """
    import transformers

    found = getattr(transformers, name, None)
    if isinstance(found, type) and issubclass(found, transformers.PreTrainedModel):
        return found
    msg = f"it has no network {name[:100]}"
    raise ValueError(msg)


def dtype_of(state: Mapping[str, Tensor]) -> torch.dtype:
    """The narrowest dtype that holds all floating tensors of the state exactly."""
    dtypes = [value.dtype for value in state.values() if value.is_floating_point()]
    return functools.reduce(torch.promote_types, dtypes) if dtypes else torch.get_default_dtype()


def _checked(folder: Path, config: Mapping[str, Any]) -> State | None:
    """The weights, if they are in files of torch.save; None for safetensors, which transformers reads itself.

    Raises:
        ValueError: for files that are elsewhere, an adapter, code or other sizes.
    """
    if (folder / _ADAPTER).exists():
        msg = f"{folder} holds an adapter of another network ({_ADAPTER}); merge it into that one, and save the whole"
        raise ValueError(msg)
    whole = next((folder / name for name in WHOLE if (folder / name).exists()), None)
    if whole is None:
        msg = f"transformers cannot load {folder} (it holds none of {', '.join(WHOLE)}); {_EXPECTED}"
        raise ValueError(msg)
    files = shards(whole) if is_index(whole) else [within(folder, whole.name, whole.suffix)]
    if files[0].suffix == ".bin":
        states = read_contents(whole).states
        if len(states) > 1:
            msg = (
                f"{whole} holds several state_dicts: {', '.join(states)}; transformers takes one. Give the file in "
                "place of the folder, with its architecture (model=, --model) and key= (--key)"
            )
            raise ValueError(msg)
        (state,) = states.values()
        check_dense(state, whole)
        _check_sizes(folder, config, [list(value.shape) for value in state.values()])
        return state
    try:
        shapes: list[list[int]] = []
        for file in files:
            with safe_open(file, framework="pt") as opened:
                shapes += [opened.get_slice(name).get_shape() for name in opened.keys()]  # noqa: SIM118
    except SafetensorError as error:
        msg = f"transformers cannot load {folder} ({error}); {_EXPECTED}"
        raise ValueError(msg) from error
    _check_sizes(folder, config, shapes)
    return None


def _check_sizes(folder: Path, config: Mapping[str, Any], shapes: Sequence[Sequence[int]]) -> None:
    """Check that the configuration is of a network of the weights' size, and names nothing elsewhere.

    Raises:
        ValueError: if it is not, or does.
    """
    most = {word: len(shapes) for word in ("layer", "depth", "block", "stage")}
    most |= {word: max((max(shape, default=1) for shape in shapes), default=0) for word in ("label", "expert")}
    for key, value in _entries(config):
        elsewhere = key == "transformers_weights" and value is not None
        program = key.endswith("_implementation") and isinstance(value, str) and "/" in value
        if elsewhere or program:
            msg = f"the config.json of {folder} names {key} = {value!r} in another place; {_EXPECTED}"
            raise ValueError(msg)
        sizes = [size for size in (value if isinstance(value, list) else [value]) if isinstance(size, int)]
        if any(word in key and size > limit for word, limit in most.items() for size in sizes):
            msg = (
                f"the config.json of {folder} asks for {key} = {json.dumps(value)[:40]}, and its weights are "
                f"{len(shapes)} tensors; {_EXPECTED}"
            )
            raise ValueError(msg)


def _entries(config: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Entries of a config and of the configs within it, such as that of a vision part."""
    for key, value in config.items():
        yield key, value
        if isinstance(value, Mapping):
            yield from _entries(value)
