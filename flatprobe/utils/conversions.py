"""Three lines of Python that convert a file with code to safetensors, where the file is trusted."""

from pathlib import Path
from typing import NamedTuple


class Kind(NamedTuple):
    """A format with code: its name, the expression that reads it, and the call that writes the weights."""

    name: str
    read: str
    write: str


_MODULE = "safetensors.torch.save_model(content, {new!r})"
MODULE = Kind("pickled module", "torch.load({old!r}, weights_only=False)", _MODULE)
SCRIPT = Kind("TorchScript", "torch.jit.load({old!r})", _MODULE)
EXPORT = Kind(
    "torch.export", "torch.export.load({old!r})", "safetensors.torch.save_file(dict(content.state_dict), {new!r})"
)
PICKLE = Kind(
    "pickle",
    "torch.load({old!r}, weights_only=False)  # a dictionary; its weights may have another key",
    'torch.save(content["state_dict"], {new!r})',
)


def lines(file: Path, kind: Kind, key: str = "") -> str:
    """The sentence and the three lines, to be run where the file is trusted.

    Args:
        file: the file.
        kind: its format.
        key: entries that lead to the module, joined by dots.
    """
    new = f"{file.stem}-weights.pt" if kind is PICKLE else f"{file.stem}.safetensors"
    path = "".join(f"[{part!r}]" for part in key.split(".") if part)
    to = "" if kind is PICKLE else "to safetensors "
    read = kind.read.format(old=file.name) + path
    return (
        f"If you trust the file, convert it {to}with these three lines, and give the architecture (model=, --model):\n"
        f"    import torch, safetensors.torch\n    content = {read}\n    {kind.write.format(new=new)}"
    )
