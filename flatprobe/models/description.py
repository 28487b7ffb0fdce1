"""Descriptions of checkpoints that need no architecture: what a file holds, and what loading it needs."""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from flatprobe.models.architectures import CONFIG, config_of
from flatprobe.models.checkpoints import knows_architecture, weights_of
from flatprobe.models.preprocessing import preprocessing
from flatprobe.utils.contents import NESTS, rank, read_contents
from flatprobe.utils.tensor_files import State

_LISTED = 5


def describe(path: Path) -> tuple[dict[str, str], dict[str, State]]:
    """Content of a checkpoint in words, and its state_dicts by key.

    Args:
        path: a file, or a folder that is one checkpoint.

    Returns:
        The rows of a table, and the state_dicts; the key `""` is the file itself.

    It raises the errors of `load_checkpoint` for a file that is refused.
    """
    file = weights_of(path) if path.is_dir() else path
    contents = read_contents(file)
    folder = file.parent
    customary = {key: state for key, state in contents.states.items() if rank(key) < len(NESTS)}
    states = customary or contents.states  # without the state of callbacks and the like
    size = sum(each.stat().st_size for each in contents.files)
    rows = {"format": f"{contents.form}, {size:,} bytes"}
    for key, state in states.items():
        rows[f"key {key}" if key else "weights"] = _summary(state)
    first = [name for state in states.values() for name in state]
    rows["names"] = ", ".join(dict.fromkeys(name.split(".")[0] for name in first))[:500]
    if contents.beside:
        rows["left out"] = ", ".join(f"{place} ({name})" for place, name in [*contents.beside.items()][:_LISTED])
    if contents.metadata:
        rows["metadata"] = ", ".join(f"{key}={value}"[:100] for key, value in [*contents.metadata.items()][:_LISTED])
    asked = preprocessing(folder)
    if asked.normalisation:
        rows["normalization"] = f"mean {list(asked.normalisation[0])}, std {list(asked.normalisation[1])}"
    if asked.size:
        rows["image size"] = f"{asked.size[0]} x {asked.size[1]}"
    rows["architecture"] = _architecture(path, folder)
    return rows, states


def _summary(state: Mapping[str, Tensor]) -> str:
    dtypes = Counter(str(value.dtype).removeprefix("torch.") for value in state.values())
    kinds = ", ".join(f"{count} {dtype}" for dtype, count in dtypes.most_common())
    weights = sum(value.numel() for value in state.values() if value.is_floating_point())
    broken = [name for name, value in state.items() if value.is_floating_point() and not bool(value.isfinite().all())]
    words = f"{len(state)} tensor{'s' * (len(state) != 1)} ({kinds}), {weights:,} floating numbers"
    return f"{words}; NaN or infinite values in {', '.join(broken[:_LISTED])}" if broken else words


def _architecture(path: Path, folder: Path) -> str:
    """The architecture that the files name, or what to give."""
    config = config_of(folder)
    if knows_architecture(path):
        if "model_type" in config:
            return f"{config['architectures'][0]} of transformers: nothing else is needed"
        return f"{config['network']['recipe'].get('name')} of flatprobe: nothing else is needed"
    needed = "not in the file: give it by --model package.module:name or path/to/file.py:name"
    if "pretrained_cfg" in config and isinstance(config.get("architecture"), str):
        return f"{needed}; timm calls it {config['architecture'][:100]}"
    if "model_type" in config:
        return f"{needed}; transformers calls it {config.get('architectures')}"
    return f"{needed}; {CONFIG} has {', '.join([*config][:_LISTED])}" if config else needed
