"""Data of the command line, with the normalization of each network."""

import json
import math
import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

from cyclopts import Parameter

from flatprobe.cli.reading import data_of, image_size, test_data_of
from flatprobe.utils.references import resolve

if TYPE_CHECKING:
    from torch import nn

    from flatprobe.cli.networks import LoadedNetwork
    from flatprobe.data import LabelledData
    from flatprobe.studies.doubts import Doubt

_HISTORY = "history.json"
_SHIFTED = '{"name": "token_cross_entropy", "shift": true}'
_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))

Scale = tuple[tuple[float, ...], tuple[float, ...]]


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class DataOptions:
    """Options of the commands that read data.

    Parameters
    ----------
    data: str
        "digits", the name of a Hugging Face data set, a folder, a file .npz or .pt, or a function that returns data
        (tensors, arrays, a data set or a loader) as package.module:name or path/to/file.py:name. A function with an
        argument split returns the samples of that split, "train" or "test". Pixels are in [0, 1], and those of a
        function are taken as they are, except uint8, which is divided by 255. The default is the training data of each
        run, unless they are of a function, which is run only if it is named here.
    split: str
        Split of the data. The default is the training split.
    test: str
        Split of the same data for test accuracy and loss, or none. The default is the split "test" where there is one.
    limit: int
        Number of samples to use, from the first one on.
    normalise: list[str]
        Mean and standard deviation that the network's inputs were normalized with, such as 0.1307 0.3081, or
        "0.485,0.456,0.406" "0.229,0.224,0.225" by channel; or imagenet; or auto, the default, which is what the
        checkpoint's folder says; or none. All figures stay in the units of the pixels. A checkpoint whose folder says
        its own keeps it, and so do networks that flatprobe trained.
    resize: str
        Side, or height x width such as 224x160, that images are resized to by bilinear interpolation.
    crop: int
        Side of the central square of the images, after resizing.
    greyscale: bool
        Make images grey, with one channel.
    colour: bool
        Give grey images three equal channels.
    loss: str
        Loss of the weight-space probes: cross_entropy (the default), another training objective, or for other tasks
        squared_error, absolute_error, binary_cross_entropy, pixel_cross_entropy, token_cross_entropy or model. With
        arguments in JSON: '{"name": "token_cross_entropy", "shift": true}'. Or a function of outputs and targets with
        one value per sample, as package.module:name or path/to/file.py:name.
    """

    data: str | None = None
    split: str | None = None
    test: str | None = None
    limit: int | None = None
    normalise: Annotated[tuple[str, ...], Parameter(negative=(), consume_multiple=True)] = ()
    resize: str | None = None
    crop: int | None = None
    greyscale: Annotated[bool, Parameter(negative=())] = False
    colour: Annotated[bool, Parameter(negative=())] = False
    loss: str | None = None


class Samples(NamedTuple):
    """A network and the data to measure it on.

    Args:
        network: the network, inside `fp.Normalised` where its inputs are normalized.
        data: the data, with classes numbered as the network's.
        test: the test data, or None.
        said: sentences on what was found and changed.
        warned: sentences on the data.
        doubts: doubts that the network is measured as it was trained.
    """

    network: "nn.Module"
    data: "LabelledData"
    test: "LabelledData | None"
    said: tuple[str, ...] = ()
    warned: tuple[str, ...] = ()
    doubts: "tuple[Doubt, ...]" = ()

    @property
    def warnings(self) -> tuple[str, ...]:
        """Sentences on what is likely wrong."""
        return (*self.warned, *(doubt.sentence for doubt in self.doubts))


def samples_for(loaded: "LoadedNetwork", options: DataOptions) -> Samples:
    """The network of a checkpoint, ready to be measured, and its data.

    Data that are named are read once for all networks of a command.

    Args:
        loaded: a network that was not refused.
        options: options of the command.

    Raises:
        ValueError: if the data are not known, cannot be read, or do not fit the network.
    """
    from flatprobe.models import Normalised
    from flatprobe.studies.accuracy import accuracy_doubts

    network = loaded.network
    if network is None:
        msg = f"{loaded.name} must be a network, got a refusal: {loaded.refusal}"
        raise ValueError(msg)
    size, said = size_of(options.resize), list[str]()
    if size is None and options.crop is None and options.data is not None and loaded.size is not None:
        own = image_size(options.data, options.split)
        size = loaded.size if own not in {None, loaded.size} else None
        said += [f"images are resized to {size[0]}x{size[1]}, as its folder says"] if size is not None else []
    data, test, warned = _read(None if options.data else loaded.path, options, size)
    found, reason = _normalisation(loaded, network, options.normalise)
    said += reason
    data, renumbered = numbered_for(network, data)
    if renumbered:
        said.append("the classes of the data are renumbered in the network's order, by their names")
    test = None if test is None else numbered_for(network, test)[0]
    wrapped = network if found is None else Normalised(network, *found)
    claimed = _claimed(loaded.path, data, network)
    try:
        accuracy = accuracy_doubts(wrapped, data, claimed=claimed)
    except ValueError as error:
        if "channels" in str(error) or "cannot be run on inputs" in str(error):
            msg = f"{error}. --colour, --greyscale, --resize and --crop change images"
            raise ValueError(msg) from error
        raise
    return Samples(wrapped, data, test, tuple(said), warned, accuracy)


def _normalisation(
    loaded: "LoadedNetwork", network: "nn.Module", words: Sequence[str]
) -> tuple[Scale | None, list[str]]:
    """Mean and std of a network's inputs, and their origin in words.

    A checkpoint that says its own keeps it, so that checkpoints of several origins fit into one command.
    """
    from flatprobe.network.trained_on import training_data
    from flatprobe.studies.accuracy import is_normalised
    from flatprobe.studies.doubts import numbers

    given = scale_of(words)
    found = None if [*words] == ["none"] else loaded.normalisation or given
    if found is None:
        return None, []
    if is_normalised(network):
        return None, ["the network normalizes its inputs itself, and no further normalization is added"]
    if loaded.normalisation is None and training_data(network):
        return None, ["flatprobe trained the network on inputs as they are, and no normalization is added"]
    where = "as --normalise says" if loaded.normalisation is None else "as its folder says"
    return found, [f"inputs are normalized by mean {numbers(found[0])} and std {numbers(found[1])}, {where}"]


def loss_of(options: DataOptions) -> Any:
    """The loss of `--loss`: a name, a name with arguments in JSON, or the function that it refers to.

    Raises:
        ValueError: for arguments that are no JSON, or an unknown name.
    """
    from flatprobe.functional.losses import per_sample_loss
    from flatprobe.functional.task_losses import TASK_LOSSES

    if options.loss is None:
        return "cross_entropy"
    found = _named_loss(options)
    per_sample_loss(found, TASK_LOSSES)
    return found


def _named_loss(options: DataOptions) -> Any:
    assert options.loss is not None
    if options.loss.startswith("{"):
        try:
            return json.loads(options.loss)
        except json.JSONDecodeError as error:
            msg = f"--loss must be a name, a reference or JSON such as {_SHIFTED}, got {options.loss!r} ({error})"
            raise ValueError(msg) from error
    return resolve(options.loss, "--loss") if ":" in options.loss else options.loss


@lru_cache(maxsize=4)
def _read(
    run: Path | None, options: DataOptions, size: tuple[int, int] | None
) -> tuple["LabelledData", "LabelledData | None", tuple[str, ...]]:
    """The data, the test data, and the warnings of their reading."""
    changes = {"resize": size, "crop": options.crop, "greyscale": options.greyscale, "colour": options.colour}
    changes = {name: value for name, value in changes.items() if value is not None and value is not False}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        data = data_of(run, options.data, options.split, options.limit, **changes)
        test = test_data_of(data, run, options.data, options.split, options.test, options.limit, **changes)
        if test is not None and test.fingerprint == data.fingerprint:
            warnings.warn(
                f"the test data are the {len(data)} training samples again; no test figures. Name another split with "
                "--test, or --test none",
                stacklevel=2,
            )
            test = None
    return data, test, tuple(dict.fromkeys(str(each.message) for each in caught if each.category is UserWarning))


def numbered_for(network: "nn.Module", data: "LabelledData") -> tuple["LabelledData", bool]:
    """The data with their classes in the network's order, and whether that changed them.

    The order changes where both name the same classes in different orders.
    """
    from flatprobe.network.class_names import class_names_of, find_misplaced

    own, names = class_names_of(network), data.source.get("class_names")
    if own is None or names is None or not {*names} <= {*own[0]} or find_misplaced(names, own[0]) is None:
        return data, False
    return data.with_class_names(own[0]), True


def scale_of(words: Sequence[str]) -> Scale | None:
    """Mean and std of `--normalise`; None for nothing, "auto" and "none".

    Raises:
        ValueError: for other words, or a std that is not positive.

    >>> scale_of(["0.485,0.456,0.406", "0.229,0.224,0.225"]) == scale_of(["imagenet"])
    True
    """
    if [*words] in ([], ["auto"], ["none"]):
        return None
    if [*words] == ["imagenet"]:
        return _IMAGENET
    try:
        mean, std = (tuple(map(float, re.split(r"[,\s]+", word.strip("[]() ")))) for word in words)
    except ValueError:
        mean, std = (), ()
    finite = all(map(math.isfinite, (*mean, *std))) and all(value > 0 for value in std)
    if not mean or not finite or len({len(mean), len(std)} - {1}) > 1:
        msg = (
            f"--normalise must be MEAN STD such as 0.1307 0.3081 or 0.485,0.456,0.406 0.229,0.224,0.225, std above 0, "
            f"or imagenet, auto or none, got {' '.join(words)!r}. Put checkpoints before the options."
        )
        raise ValueError(msg)
    return mean, std


def size_of(words: str | None) -> tuple[int, int] | None:
    """Height and width of `--resize`, the side of a square or "HEIGHTxWIDTH".

    Raises:
        ValueError: for other words.

    >>> size_of("32"), size_of("224x160")
    ((32, 32), (224, 160))
    """
    if words is None:
        return None
    match = re.fullmatch(r"([1-9]\d*)(?:x([1-9]\d*))?", words)
    if match is None:
        msg = f"--resize must be a side such as 32, or height x width such as 224x160, got {words!r}."
        raise ValueError(msg)
    return int(match[1]), int(match[2] or match[1])


def _claimed(run: Path, data: "LabelledData", network: "nn.Module") -> float | None:
    """Accuracy on these data at the end of the training, by the run's history; None where it says nothing of them."""
    from flatprobe.network.trained_on import trained_on
    from flatprobe.utils.tensor_files import read_json

    file = run / _HISTORY
    if not run.is_dir() or not file.is_file() or not trained_on(network, data):
        return None
    try:
        return float(read_json(file, "")["epochs"][-1]["train_accuracy"])
    except (ValueError, KeyError, IndexError, TypeError):  # the history of another program
        return None
