"""Damaged and hostile files: noticed, refused at once, and never another's file overwritten."""

import io
import json
import os
import pickle
import struct
import threading
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import safetensors.torch
import torch
from torch import nn

import flatprobe as fp
from flatprobe import models
from flatprobe.models.checkpoints import load_checkpoint, save_checkpoint
from flatprobe.training.run_folder import RunFolder
from flatprobe.utils import atomic
from flatprobe.utils.atomic import check_writable, is_abandoned, leftovers, write_beside
from flatprobe.utils.tables import read_table, write_table
from flatprobe.utils.tensor_files import read_tensors

DATA = fp.LabelledData(torch.eye(4), torch.arange(4))
CONFIG = {"settings": {}, "environment": {}}


def flipped(content: bytes, count: int):
    """Copies with one bit changed, at places drawn once."""
    rng = np.random.default_rng(0)
    for place in rng.integers(len(content), size=count):
        copy = bytearray(content)
        copy[place] ^= 1 << int(rng.integers(8))
        yield bytes(copy)


@pytest.mark.parametrize("suffix", ["safetensors", "pt"])
def test_a_flipped_bit_of_a_checkpoint_is_noticed(tmp_path, suffix):
    net = nn.Linear(16, 16)
    save_checkpoint(net, tmp_path / "a.safetensors", {"note": "x"})
    torch.save(net.state_dict(), tmp_path / "a.pt")
    path, refused = tmp_path / f"a.{suffix}", 0
    for content in flipped(path.read_bytes(), 150):
        path.write_bytes(content)
        try:
            loaded = load_checkpoint(path, nn.Linear(16, 16))
        except ValueError:
            refused += 1
        else:
            assert torch.equal(loaded.weight, net.weight)
            assert torch.equal(loaded.bias, net.bias)
    # In a zip archive some bytes mean nothing; a header without the digest's key is that of an earlier file.
    assert refused >= (145 if suffix == "safetensors" else 100)


def test_a_flipped_bit_of_a_record_is_noticed(tmp_path):
    frame = pd.DataFrame({"value": np.random.default_rng(0).random(50), "name": ["a", "b"] * 25})
    path = write_table(frame, tmp_path / "a.parquet", {"kind": "x", "settings": {"seed": 3}})
    assert read_table(path)[1] == {"kind": "x", "settings": {"seed": 3}}
    refused = 0
    for content in flipped(path.read_bytes(), 100):
        path.write_bytes(content)
        try:
            read = read_table(path)[0]
        except ValueError:
            refused += 1
        else:  # the key of the digest itself: the file is taken for an earlier one
            assert read.equals(frame)
    assert refused >= 97


def test_files_without_a_digest_are_read(tmp_path):
    safetensors.torch.save_file({"w": torch.ones(2)}, tmp_path / "a.safetensors", {"note": "x"})
    assert read_tensors(tmp_path / "a.safetensors")[1] == {"note": "x"}
    path = write_table(pd.DataFrame({"a": [1]}), tmp_path / "a.parquet", {"kind": "x"})
    table = pq.read_table(path)
    pq.write_table(table.replace_schema_metadata({b"flatprobe": b'{"kind": "x"}'}), path)
    assert read_table(path)[1] == {"kind": "x"}
    torch.serialization.set_crc32_options(compute_crc32=False)
    try:
        torch.save({"weight": torch.ones(3, 2), "bias": torch.zeros(3)}, tmp_path / "a.pt")
    finally:
        torch.serialization.set_crc32_options(compute_crc32=True)
    assert torch.equal(load_checkpoint(tmp_path / "a.pt", nn.Linear(2, 3)).weight, torch.ones(3, 2))


def bomb(doublings: int) -> bytes:
    """A dictionary whose key is a tuple of two of a tuple of two of ...: hashing it takes 2^doublings steps."""
    pickled = b"\x80\x02}U\x01aq\x00"
    for k in range(doublings):
        pickled += b"h" + bytes([k]) + b"h" + bytes([k]) + b"\x86q" + bytes([k + 1])
    return pickled + b"K\x01s."


def zipped(content: bytes, name: str = "a/data.pkl") -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, content)
        archive.writestr("a/data/0", bytes(2_000_000))
    return buffer.getvalue()


HOSTILE = {
    "doubled tuples": (bomb(60), "builds more objects, or nests them deeper"),
    "deep tuples": (b"\x80\x02}K\x01" + b"\x85" * 10_000 + b"K\x01s.", "builds more objects, or nests them deeper"),
    "unpacks": (zipped(bomb(60)), r"its \d+ bytes unpack to 2\d+; expected what torch\.save wrote"),
    "zip without an end": (b"PK\x03\x04" + bytes(10_000), "truncated or corrupt"),
    "neither": (bytes(10_000), "neither a safetensors file nor a file of torch"),
    "header too long": (struct.pack("<Q", 10**8) + b"{", r"safetensors file .* is truncated or corrupt"),
    "long key": (b"\x80\x02}\x8b" + struct.pack("<i", 10**5) + b"\x7f" * 10**5 + b"K\x01s.", "refused|corrupt"),
    "list of code": (pickle.dumps([print]), "could execute code"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_checkpoints_are_refused_at_once(tmp_path, name):
    content, message = HOSTILE[name]
    (tmp_path / "a.pt").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        load_checkpoint(tmp_path / "a.pt", nn.Linear(2, 3))


def test_a_damaged_directory_of_an_archive(tmp_path):
    torch.save(nn.Linear(2, 3).state_dict(), tmp_path / "a.pt")
    content = bytearray((tmp_path / "a.pt").read_bytes())
    content[content.rfind(b"PK\x01\x02")] ^= 1
    (tmp_path / "a.pt").write_bytes(content)
    with pytest.raises(ValueError, match=r"a\.pt \(\d+ bytes\) is truncated or corrupt"):
        load_checkpoint(tmp_path / "a.pt", nn.Linear(2, 3))


def test_too_many_tensors_and_no_plain_file(tmp_path):
    entry = {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}
    header = json.dumps({f"k{k}": entry for k in range(100_001)}).encode()
    (tmp_path / "a.safetensors").write_bytes(struct.pack("<Q", len(header)) + header)
    with pytest.raises(ValueError, match="its header names 100001 tensors"):
        load_checkpoint(tmp_path / "a.safetensors", nn.Linear(2, 3))
    os.mkfifo(tmp_path / "pipe.pt")
    with pytest.raises(ValueError, match=r"pipe\.pt must be a file or a folder"):
        load_checkpoint(tmp_path / "pipe.pt", nn.Linear(2, 3))


def recipe(name: str = "mlp", **arguments: object) -> dict[str, object]:
    return {"network": {"recipe": {"name": name, "arguments": arguments}}}


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (recipe("normalised"), r"recipe of 'normalised' does not fit .*'network'"),
        (recipe("normalised", network="mlp", mean=0, std=1), r"the recipe is \{\}; expected"),
        (recipe(input_shape=[4], widths="wide"), r"widths is 'wide'; expected whole numbers.* for mlp\(input_shape"),
        (recipe(input_shape=[float("nan")]), r"input_shape is \[nan\]; expected whole numbers in a list"),
        (recipe(input_shape=[4], widths=[3.5]), r"widths is \[3\.5\]; expected whole numbers"),
        (recipe(input_shape=[4], classes=2.5), r"classes is 2\.5; expected a whole number"),
        (recipe(input_shape=[4], widths=[10**6, 10**6]), r"of another network .* instead of \(1000000, 4\)"),
        (recipe(input_shape=[10**9] * 3), "recipe of 'mlp' does not fit its builder"),
        (recipe("resnet", input_shape=[1, 8, 8], depth=6 * 10**8 + 4), "is of 600000004 layers, and the file holds 4"),
        ([], r"config\.json holds a list; expected a JSON object"),
    ],
)  # fmt: skip
def test_recipes_that_are_none(tmp_path, config, message):
    save_checkpoint(models.mlp((4,), widths=(3,), classes=2), tmp_path / "last.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=message):
        load_checkpoint(tmp_path)


def test_json_nested_without_end(tmp_path):
    save_checkpoint(nn.Linear(2, 3), tmp_path / "last.safetensors")
    (tmp_path / "config.json").write_text("[" * 200_000 + "]" * 200_000)
    with pytest.raises(ValueError, match=r"config\.json is not valid JSON .*model="):
        load_checkpoint(tmp_path)


@pytest.mark.parametrize("content", ['{"model_type": "bert", "mine": "precious"}', "[]", '{"settings": 1}'])
def test_another_programs_config_is_left_alone(tmp_path, content):
    (tmp_path / "config.json").write_text(content)
    for resume in (True, False):
        with pytest.raises((FileExistsError, ValueError), match=r"config\.json .*another program's|holds a list"):
            fp.train(nn.Linear(4, 4), DATA, epochs=1, out=tmp_path, resume=resume)
    assert (tmp_path / "config.json").read_text() == content
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"]


@pytest.mark.parametrize("content", ["{}", '{"epochs": 3, "finished": true}', '{"epochs": [], "finished": true}'])
def test_a_history_that_is_none(tmp_path, content):
    RunFolder(tmp_path).claim(CONFIG, resume=True)
    (tmp_path / "history.json").write_text(content)
    with pytest.raises(ValueError, match=r"history\.json holds no epochs; delete the run's folder"):
        fp.TrainingRun.load(tmp_path)
    safetensors.torch.save_file({"w": torch.ones(1)}, tmp_path / "resume.safetensors")
    with pytest.raises(ValueError, match=r"resume\.safetensors holds no history"):
        RunFolder(tmp_path).progress()


def test_other_programs_files_are_no_records_or_pages(tmp_path):
    margins = fp.functional_margins(nn.Linear(4, 4).eval(), DATA)
    foreign = tmp_path / "functional_margins" / "net.parquet"
    foreign.parent.mkdir()
    foreign.write_bytes(b"precious")
    page = tmp_path / "report.html"
    page.write_text("precious")
    with pytest.raises(FileExistsError, match=r"net\.parquet exists and is no record of flatprobe"):
        fp.save(margins, foreign)
    with pytest.raises(FileExistsError, match=r"net\.parquet exists and is no record of flatprobe"):
        fp.compare({"net": nn.Linear(4, 4).eval()}, DATA, probes=["functional_margins"], out=tmp_path)
    from flatprobe.report import report

    with pytest.raises(FileExistsError, match=r"report\.html exists and is no page of flatprobe"):
        report({"functional_margins": {"net": margins}}, page)
    assert (foreign.read_bytes(), page.read_text()) == (b"precious", "precious")
    foreign.unlink()
    for _ in range(2):  # an earlier record or page may go
        fp.save(margins, foreign)
        report({"functional_margins": {"net": margins}}, tmp_path / "new.html")


def test_the_file_of_a_writer_at_work_stays(tmp_path):
    """A second process claims the folder while the first writes."""
    RunFolder(tmp_path).claim(CONFIG, resume=True)
    (tmp_path / "history.json").write_text('{"finished": false, "epochs": []}')
    (tmp_path / ".last.safetensors.18.tmp").write_bytes(b"half")  # of a process that was killed
    with write_beside(tmp_path / "last.safetensors") as temporary:
        temporary.write_bytes(b"whole")
        claim = threading.Thread(target=lambda: RunFolder(tmp_path).claim(CONFIG, resume=True))
        claim.start()
        claim.join()
        assert leftovers(tmp_path / "last.safetensors") == [temporary]
        assert not is_abandoned(temporary)
    assert (tmp_path / "last.safetensors").read_bytes() == b"whole"


def test_a_full_disk_names_the_file_and_what_is_kept(tmp_path, monkeypatch):
    save_checkpoint(nn.Linear(2, 3), tmp_path / "a.safetensors")
    before = (tmp_path / "a.safetensors").read_bytes()

    def full(_self, _content):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(
        OSError, match=r"a\.safetensors could not be written \(No space left on device\), and the earlier file is kept"
    ):
        save_checkpoint(nn.Linear(2, 3), tmp_path / "a.safetensors")
    with pytest.raises(
        OSError, match=r"b\.safetensors could not be written .*, and nothing was left there\. Free"
    ) as caught:
        save_checkpoint(nn.Linear(2, 3), tmp_path / "b.safetensors")
    assert caught.value.errno == 28
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"a.safetensors": before}


def test_a_folder_that_takes_no_files_is_told_before_anything_is_measured(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("x")
    with pytest.raises(FileExistsError, match=r"file must be writable, got: .*Choose another folder"):
        check_writable(tmp_path / "file")

    def denied(**_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(atomic.tempfile, "TemporaryFile", denied)
    with pytest.raises(PermissionError, match=r"out must be writable, got: Permission denied"):
        fp.compare({"net": nn.Linear(4, 4).eval()}, DATA, probes=pytest.fail, out=tmp_path / "out")  # is not called


def test_other_errors_of_a_network_stay_what_they_are():
    class Broken(nn.Linear):
        def forward(self, _x):
            msg = "mine"
            raise RuntimeError(msg)

    with pytest.raises((RuntimeError, ValueError), match="mine") as caught:
        fp.functional_margins(Broken(4, 4).eval(), DATA)
    assert "batch_size" not in str(caught.value)
