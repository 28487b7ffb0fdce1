"""Corrupt and hostile checkpoints; every payload in them tries to make the canary."""

import gzip
import io
import json
import pickle
import struct
import subprocess
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import nn

from tests.helpers import zoo

CANARY: list[Path] = []  # where payloads leave their mark; set by the fixture


def _touch() -> Path:
    return CANARY[0]


class Payload:
    """A pickle of it calls a function when it is read."""

    def __init__(self, function: Any, *arguments: object) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple[Any, tuple[object, ...]]:
        return self.call


class Living(nn.Linear):
    """A module whose unpickling makes the canary."""

    def __setstate__(self, state: dict[str, Any]) -> None:
        _touch().touch()
        super().__setstate__(state)


class Born:
    """An object whose unpickling makes the canary, without a call in the pickle."""

    def __new__(cls) -> "Born":
        if CANARY:
            _touch().touch()
        return super().__new__(cls)

    def __setstate__(self, _state: object) -> None:
        _touch().touch()


def state() -> dict[str, torch.Tensor]:
    return zoo.network().state_dict()


def saved(content: object, **options: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer, **options)
    return buffer.getvalue()


def code() -> str:
    return f"import pathlib; pathlib.Path({str(_touch())!r}).touch()"


def expression() -> str:
    return f"__import__('pathlib').Path({str(_touch())!r}).touch()"


def zipped(entries: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def header(entries: object, data: bytes = b"") -> bytes:
    text = entries if isinstance(entries, bytes) else json.dumps(entries).encode()
    return struct.pack("<Q", len(text)) + text + data


def scripted() -> bytes:
    with pytest.warns(DeprecationWarning, match="jit"):
        program = torch.jit.script(nn.Linear(2, 3))
    return bytes(program.save_to_buffer())


def exported() -> bytes:
    buffer = io.BytesIO()
    torch.export.save(torch.export.export(nn.Linear(2, 3), (torch.zeros(1, 2),)), buffer)
    return buffer.getvalue()


def renamed_globals(old: bytes, new: bytes) -> bytes:
    """A zip of torch.save whose pickle names another function."""
    with zipfile.ZipFile(io.BytesIO(saved(state()))) as archive:
        return zipped({name: archive.read(name).replace(old, new) for name in archive.namelist()})


def many_classes() -> bytes:
    """A pickle that names 5,000 classes, with which each call would be compared."""
    names = b"".join(b"cmodule\nName%d\n0" % k for k in range(5000))
    return b"\x80\x02" + names + b"}."


def doubled(count: int) -> bytes:
    text = b"\x80\x02}U\x01aq\x00"
    for k in range(count):
        text += b"h" + bytes([k]) + b"h" + bytes([k]) + b"\x86q" + bytes([k + 1])
    return text + b"K\x01s."


def huge_tensor() -> dict[str, Any]:
    return {"w": {"dtype": "F32", "shape": [2**40, 2**40], "data_offsets": [0, 4]}}


def overlapping() -> bytes:
    one = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}
    return header({"a": one, "b": one}, bytes(4))


def strided() -> bytes:
    """A tensor that claims 2^60 values over a storage of ten."""
    return saved({"w": torch.zeros(10)}).replace(b"K\n\x85", b"\x8a\x08" + struct.pack("<q", 2**60) + b"\x85")


# Name of the file -> its content and a part of the message.
FILES: dict[str, tuple[Callable[[], bytes], str]] = {
    # payloads
    "eval.pt": (lambda: saved({"w": Payload(eval, expression())}), "could execute code"),
    "exec.pt": (lambda: saved({**state(), "x": Payload(exec, code())}), r"it calls builtins\.exec"),
    "popen.pt": (lambda: saved({"state_dict": state(), "x": Payload(subprocess.Popen, ["touch", str(_touch())])}),
                 r"it calls \w+\.Popen"),
    "os.pt": (lambda: saved({"x": Payload(__import__("os").system, f"touch {_touch()}")}), r"it names posix\.system"),
    "getattr.pt": (lambda: saved({"x": Payload(getattr, Path, "touch")}), r"it calls builtins\.getattr"),
    "import.pt": (lambda: saved({"x": Payload(__import__, "antigravity")}), r"it calls builtins\.__import__"),
    "run.pt": (lambda: saved({"x": Payload(__import__("runpy").run_path, "x.py")}), r"it calls runpy\.run_path"),
    "legacy.pt": (lambda: saved({"x": Payload(exec, code())}, _use_new_zipfile_serialization=False), "execute code"),
    "plain.pkl": (lambda: pickle.dumps({"x": Payload(exec, code())}, protocol=2), "could execute code"),
    "protocol_5.pt": (lambda: pickle.dumps({"x": Payload(exec, code())}, protocol=5), "could execute code"),
    "protocol_0.pt": (lambda: pickle.dumps({"x": Payload(exec, code())}, protocol=0), "neither a safetensors file"),
    "as_tensors.safetensors": (lambda: pickle.dumps({"x": Payload(exec, code())}), "truncated or corrupt"),
    "key.pt": (lambda: saved({Payload(exec, code()): 1}), "could execute code"),
    "renamed.pt": (lambda: renamed_globals(b"torch._utils\n_rebuild_tensor_v2", b"builtins\nexec"), "calls builtins"),
    "load.pt": (lambda: saved({"x": Payload(torch.load, "other.pt")}), r"it calls torch\.serialization\.load"),
    "hub.pt": (lambda: saved({"x": Payload(torch.hub.load, "a/b", "c")}), r"it calls torch\.hub\.load"),
    "numpy.pt": (lambda: saved({"x": Payload(np.load, "a.npy")}), "it calls numpy"),
    # objects and programs
    "module.pt": (lambda: saved(nn.Linear(2, 3)), "a whole pickled module"),
    "living.pt": (lambda: saved({"model": Living(2, 3)}), r"Living\) under the key 'model'"),
    "born.pt": (lambda: saved({"x": Born()}), "holds a dict with the keys x"),
    "script.pt": (scripted, "is a TorchScript archive"),
    "export.pt2": (exported, r"is a torch\.export archive"),
    "no_weights.pt": (lambda: saved({"lr": 0.1}), "with the keys lr; expected a state_dict"),
    "list.pt": (lambda: saved([1, 2]), "holds a list; expected a state_dict"),
    "arrays.pt": (lambda: saved({"w": np.zeros(3)}), "arrays of NumPy"),
    # bombs
    "doubled.pt": (lambda: doubled(60), "builds more objects, or nests them deeper"),
    "deep.pt": (lambda: b"\x80\x02}K\x01" + b"\x85" * 10_000 + b"K\x01s.", "nests them deeper"),
    "zip_bomb.pt": (lambda: zipped({"a/data.pkl": bytes(10**7)}, zipfile.ZIP_DEFLATED), r"unpack to \d+; expected"),
    "many_classes.pt": (many_classes, "it names 5000"),
    "long_string.pt": (lambda: b"\x80\x02X" + struct.pack("<I", 2**31) + b"a.", "corrupt|refused"),
    "header.safetensors": (lambda: struct.pack("<Q", 2**62) + b"{", "truncated or corrupt"),
    "deep_header.safetensors": (lambda: header(b"[" * 10**5 + b"]" * 10**5), "truncated or corrupt"),
    "overflow.safetensors": (lambda: header(huge_tensor(), bytes(4)), "truncated or corrupt"),
    "negative.safetensors": (
        lambda: header({"w": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}}, bytes(4)), "truncated or corrupt"
    ),
    "overlap.safetensors": (overlapping, "truncated or corrupt"),
    "beyond.safetensors": (
        lambda: header({"w": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}}, bytes(4)), "truncated or corrupt"
    ),
    "dtype.safetensors": (
        lambda: header({"w": {"dtype": "X9", "shape": [1], "data_offsets": [0, 4]}}, bytes(4)), "truncated or corrupt"
    ),
    "strided.pt": (strided, "corrupt|another network"),
    # damaged and other files
    "empty.pt": (lambda: b"", "it is empty"),
    "empty.safetensors": (lambda: b"", "truncated or corrupt"),
    "page.pt": (lambda: b"<!DOCTYPE html><html>Sign in", "it is a web page"),
    "pointer.bin": (lambda: b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n", "pointer of Git LFS"),
    "half.pt": (lambda: saved(state())[:2000], "truncated or corrupt"),
    "half.safetensors": (lambda: safetensors.torch.save(state())[:-100], "truncated or corrupt"),
    "half_legacy.pt": (lambda: saved(state(), _use_new_zipfile_serialization=False)[:-500], "truncated or corrupt"),
    "keras.h5": (lambda: b"\x89HDF\r\n\x1a\n" + bytes(100), "HDF5"),
    "packed.pt": (lambda: gzip.compress(saved(state())), "it is compressed"),
    "quantized.gguf": (lambda: b"GGUF" + bytes(100), "GGUF"),
    "array.pt": (lambda: b"\x93NUMPY" + bytes(100), "an array of NumPy"),
    "config.pt": (lambda: b'{"lr": 1}', "it is JSON"),
    "zeros.pt": (lambda: bytes(10_000), "truncated, corrupt, or of another program"),
    "documents.pt": (lambda: zipped({"a.txt": b"hello"}), r"without data\.pkl; it holds a\.txt"),
    "nan.pt": (lambda: saved({**state(), "head.bias": torch.full((10,), float("nan"))}), "NaN or infinite values"),
    "meta.pt": (lambda: saved({name: value.to("meta") for name, value in state().items()}), "device meta; expected"),
    "sparse.pt": (lambda: saved({**state(), "head.weight": state()["head.weight"].to_sparse()}), "expected a dense"),
    "integers.pt": (lambda: saved({name: value.long() for name, value in state().items()}), "another kind of number"),
    "other.pt": (lambda: saved(zoo.network(width=5).state_dict()), "conv.weight .5, 1, 3, 3. instead"),
    "names.pt": (lambda: saved(OrderedDict((name.replace("head", "classifier"), value) for name, value in
                 state().items())), r"head\.weight \(closest: classifier\.weight\)"),
}  # fmt: skip


def _index(folder: Path, place: str) -> None:
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"w": place}}))


def _linked(folder: Path) -> None:
    outside = folder.parent / "secret.safetensors"
    safetensors.torch.save_file({"w": torch.ones(1)}, outside)
    (folder / "part.safetensors").symlink_to(outside)
    _index(folder, "part.safetensors")


def _transformers(folder: Path, **entries: object) -> None:
    safetensors.torch.save_file(state(), folder / "model.safetensors")
    config = {"model_type": "bert", "architectures": ["BertForSequenceClassification"], **entries}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "evil.py").write_text(code())


def _bin_shard(folder: Path) -> None:
    (folder / "part.bin").write_bytes(saved({"w": Payload(exec, code())}))
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": {"w": "part.bin"}}))


FOLDERS: dict[str, tuple[Callable[[Path], object], str]] = {
    "traversal": (lambda folder: _index(folder, "../../../etc/passwd"), "as a file of weights"),
    "absolute": (lambda folder: _index(folder, "/etc/x.safetensors"), "as a file of weights"),
    "symlink": (_linked, "as a file of weights"),
    "missing shard": (lambda folder: _index(folder, "model-1.safetensors"), "as a file of weights"),
    "empty index": (lambda folder: (folder / "model.safetensors.index.json").write_text("{}"), "has no weight_map"),
    "broken index": (lambda folder: (folder / "model.safetensors.index.json").write_text("{"), "is not valid JSON"),
    "payload in a shard": (_bin_shard, r"it calls builtins\.exec"),
    "remote code": (lambda folder: _transformers(folder, auto_map={"AutoModel": "evil.Evil"}, model_type="x"),
                    "transformers cannot load"),
    "other weights": (_transformers, "(lacks .* weights|transformers cannot load)"),
    "nothing": (lambda _folder: None, r"holds no last\.safetensors"),
}  # fmt: skip
