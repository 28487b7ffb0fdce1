"""Labelled data: the samples of probes and training, and their targets."""

import copy
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Int64, Shaped
from torch import Tensor

from flatprobe.data import validation
from flatprobe.data.balancing import balanced_positions
from flatprobe.data.batch import Batch, split
from flatprobe.data.inputs import Inputs, map_tensors
from flatprobe.data.items import Columns, Items
from flatprobe.data.relabelling import randomize, renumber
from flatprobe.data.storage import Memory, Stream
from flatprobe.data.targets import are_classes, check_targets, in_words, shape_and_dtype, to_classes
from flatprobe.utils.arguments import at_least


class LabelledData:
    """Pairs (x_i, y_i), i = 0, ..., n - 1, in a fixed order.

    Integers of shape (n,) are class indices. With other targets, `classes` is None: the probes of an `fp.EmpiricalRisk`
    measure them by a loss for their task, and probes of classifiers refuse them.

    The inputs are not copied (MNIST is 188 MB). Changing them in place is an error at the next use; torch counts
    in-place changes, but not writes through a NumPy array of the memory. The labels are copied, and so are inputs made
    under `torch.inference_mode`, through which no derivative can be taken.

    Args:
        inputs: a tensor or NumPy array (n, ...), or a dict (or another mapping) or tuple of such; finite.
        labels: class indices 0, ..., classes - 1, integers or booleans (n,). Or other targets (n, ...): floating
            numbers of a regression, 0 and 1 for several attributes, integers per pixel or token.
        classes: number of classes; None takes 1 + the largest label.
        source: origin of the data, JSON-able; recorded beside every result. The list under its key `"class_names"` is
            compared with the class names of a network.

    Raises:
        TypeError: for inputs or labels of another type.
        ValueError: for empty data, unequal lengths, labels out of range, or inputs or targets that are not finite.

    >>> data = LabelledData(torch.eye(3), torch.tensor([0, 1, 1]))
    >>> data
    LabelledData(3 samples of (3,), 2 classes, in memory)
    >>> [batch.labels.tolist() for batch in data.batches(2)]
    [[0, 1], [1]]
    """

    def __init__(
        self, inputs: Any, labels: Any, *, classes: int | None = None, source: Mapping[str, object] | None = None
    ) -> None:
        at_least(1, classes=classes)
        self.source = validation.as_source(source)
        self.store: Memory | Stream = inputs if isinstance(inputs, Stream) else Memory(inputs)  # see `from_dataset`
        self._given_classes = None if classes is None else int(classes)
        self._labels: Tensor | None = None
        self._fingerprint: str | None = None
        if labels is not None or isinstance(self.store, Memory):
            self._labels = validation.leave_inference_mode(check_targets(labels, range(len(self)), classes).clone())
        validation.warn_of_large(inputs, stacklevel=3)

    @classmethod
    def from_dataset(
        cls,
        dataset: Any,
        *,
        labels: Any = None,
        classes: int | None = None,
        source: Mapping[str, object] | None = None,
        columns: Columns | None = None,
        workers: int = 0,
    ) -> "LabelledData":
        """Labelled data streamed from a map-style data set.

        The first 2 GiB of decoded inputs are kept in their dtype, once for all parts of the data. Further items are
        decoded at each pass, a batch at a time. Probes need the same data at every pass, so up to 16 items spread over
        the data are read twice and compared. The global random states are restored.

        Args:
            dataset: `dataset[i]` is (input, label): a tensor, dict or tuple of tensors, and a number or tensor. Or a
                `DataLoader` that neither shuffles nor has its own `collate_fn`: all of its `.dataset` is used.
            labels: all labels (n, ...), where known; None reads them in one pass, when first needed.
            classes: number of classes; None takes 1 + the largest label, which needs all labels.
            source: origin of the data, JSON-able.
            columns: keys of items that are dicts: the key of the input (or a list of keys, for a dict of tensors) and
                the key of the label, such as `(["input_ids", "attention_mask"], "label")`.
            workers: processes of a `DataLoader` that decode a pass from its second batch on; 0 (default) for none.

        Returns:
            The data; their `inputs` are not available as a whole.

        Raises:
            TypeError: for an iterable data set, or items of another kind.
            ValueError: for a loader that shuffles or collates, items that differ between two readings, or other labels.
        """
        at_least(0, workers=workers)
        data = cls(stream := Stream(Items(dataset, columns, int(workers))), labels, classes=classes, source=source)
        stream.assert_repeatable(labels)
        validation.warn_of_large(map_tensors(lambda part: part[None], stream.first), stacklevel=3)
        return data

    def __len__(self) -> int:
        return len(self.store)

    @property
    def inputs(self) -> Inputs:
        """All inputs, as given; a RuntimeError for streamed data, or inputs that were changed in place."""
        return self.store.all()

    @property
    def labels(self) -> Shaped[Tensor, "samples ..."]:
        """All labels or other targets, on the CPU; read at the first use from a stream."""
        if self._labels is None:
            self._labels = validation.leave_inference_mode(torch.cat([batch.labels for batch in self.batches(256)]))
        return self._labels

    @property
    def classes(self) -> int | None:
        """Number of classes: as given, or 1 + the largest label; None if the labels are no class indices."""
        if self._given_classes is not None or not are_classes(self._some):
            return self._given_classes
        return int(self.labels.max()) + 1

    @property
    def _some(self) -> Tensor:
        """The targets, or that of the first sample of a stream, since their kind needs no pass."""
        return next(self.batches(1)).labels if self._labels is None else self._labels

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one sample; a TypeError if a sample is a dict or tuple of tensors."""
        return validation.single_shape(self.store.first)

    def batches(self, batch_size: int) -> Iterator[Batch]:
        """Batches of `batch_size` samples in order; the last batch may be short.

        The inputs of data in memory are views; do not modify them.

        Raises:
            ValueError: if the batch size is below 1.
        """
        spans, names = split(len(self), batch_size), self.source.get("class_names")
        parts = zip(spans, self.store.read_all(spans), strict=True)
        return (Batch(*self._labelled(span, *read), span.start, names) for span, read in parts)

    def gather(self, positions: Int64[Tensor, " batch"]) -> tuple[Inputs, Shaped[Tensor, "batch ..."]]:
        """Copies of the inputs and labels at these positions, in their order.

        Args:
            positions: indices in 0, ..., n - 1.

        Returns:
            Inputs (batch, ...), and labels (batch,) or other targets (batch, ...).

        Raises:
            IndexError: if a position is outside the data.
        """
        validation.check_positions(positions, len(self))
        return self._labelled(positions.cpu(), *self.store.read(positions.cpu()))

    def head(self, count: int) -> "LabelledData":
        """The first samples, with the number of classes of the whole.

        Args:
            count: number of samples.

        Returns:
            New data that share these inputs; `source["limit"]` records the count.

        Raises:
            ValueError: if the count is below 1 or above the number of samples.
        """
        if not 1 <= count <= len(self):
            msg = f"count must be 1 to {len(self)}, the number of samples, got {count}"
            raise ValueError(msg)
        return self._part(self.store.head(int(count)), slice(int(count)), {"limit": int(count)})

    def subset(self, positions: Int64[Tensor, " subset"], **note: object) -> "LabelledData":
        """The samples at these positions, in their order; `note` is added to `source`."""
        return self._part(self.store.subset(positions), positions, note)

    def balanced(self, per_class: int, seed: int = 0) -> "LabelledData":
        """Random samples without replacement, the same number of each class.

        Args:
            per_class: samples per class; Thumwanit (2020) takes 50 to 1000 [N20].
            seed: seed of the draw; the subset is the beginning of any larger one with the same seed.

        Returns:
            New data with the labels 0, ..., classes - 1 in turn; `source["balanced"]` records the draw.

        Raises:
            ValueError: if a class has fewer samples.
        """
        names, draws = self.source.get("class_names"), self.source.get("balanced", [])
        draws = [*draws, {"per_class": int(per_class), "seed": int(seed), "from": len(self)}]
        own = self.as_classes()
        return own.subset(balanced_positions(own.labels, own.classes or 0, per_class, seed, names), balanced=draws)

    def as_classes(self) -> "LabelledData":
        """The data with class indices as labels: these data, or, with targets 0.0 and 1.0, equal data.

        Raises:
            ValueError: for other targets, with the fix.
        """
        return self if self.classes is not None else self._replace(_labels=to_classes(self.labels))

    def _part(self, store: Memory | Stream, rows: slice | Tensor, note: Mapping[str, object]) -> "LabelledData":
        classes = self.classes  # before the labels are selected, since this may read them
        labels = None if self._labels is None else self._labels[rows]
        return self._replace(store=store, _given_classes=classes, _labels=labels, source={**self.source, **note})

    def with_random_labels(self, fraction: float = 1.0, seed: int = 0) -> "LabelledData":
        """The data with each label replaced by a random class with probability `fraction`.

        The drawn class may be the old one. The draw depends on (seed, position) alone: it commutes with `head`, and a
        larger fraction replaces the same labels and further ones.

        Args:
            fraction: probability of replacement; 1 (default) randomizes all labels, as T3 does.
            seed: seed of the draw.

        Returns:
            New data that share these inputs; `source["random_labels"]` records the draw.

        Raises:
            ValueError: if the fraction is outside [0, 1].

        Source: T3 section 6.1; for a part of the labels Zhang et al. (2017), section 2.1.
        """
        own = self.as_classes()
        draws = [*self.source.get("random_labels", []), {"fraction": float(fraction), "seed": int(seed)}]
        return self._replace(
            _given_classes=own.classes,
            _labels=randomize(own.labels, own.classes or 0, fraction, int(seed)),
            source={**self.source, "random_labels": draws},
        )

    def with_class_names(self, names: Sequence[str]) -> "LabelledData":
        """The data with classes renumbered, so that class k has the name `names[k]`.

        Args:
            names: the names in order, such as those of a network; further names are classes without samples.

        Returns:
            New data that share these inputs; `source["class_names"]` records the names.

        Raises:
            ValueError: if the data have no class names, or a class with samples is not among the names.

        >>> data = LabelledData(torch.eye(2), torch.tensor([0, 1]), source={"class_names": ["ant", "bee"]})
        >>> data.with_class_names(["bee", "cow", "ant"]).labels
        tensor([2, 0])
        """
        labels = renumber(self.as_classes().labels, self.source.get("class_names"), [*names])
        return self._replace(_given_classes=len(names), _labels=labels, source={**self.source, "class_names": [*names]})

    def _replace(self, **fields: Any) -> "LabelledData":
        other, labels = copy.copy(self), fields.get("_labels")
        own = None if labels is None else validation.leave_inference_mode(labels)
        vars(other).update(fields, _labels=own, _fingerprint=None)
        return other

    @property
    def fingerprint(self) -> str:
        """blake2b of inputs and labels in hex; of 16 samples for streamed inputs, and targets that are no classes."""
        inputs, few = self.store.fingerprint_pairs()
        if self._fingerprint is None:
            labels = self.labels if few is None or self.classes is not None else few
            self._fingerprint = validation.digest({**validation.parts_of(inputs), "labels": labels})
        return self._fingerprint

    def describe(self) -> dict[str, object]:
        """Fingerprint and description of the data in records; JSON-able."""
        return {
            "source": self.source,
            "samples": len(self),
            "classes": self.classes,
            **({} if self.classes is not None else {"targets": shape_and_dtype(self._some)}),
            "input_shape": validation.shapes_of(self.store.first, list),
            "fingerprint": self.fingerprint,
            "fingerprint_of": self.store.fingerprint_of,
        }

    def __repr__(self) -> str:
        """Counts, shapes and source on one line, without a pass over the data."""
        known = self._labels is not None or self._given_classes is not None
        kind = in_words(self._labels, self.classes) if known else "labels not read yet"
        source = [str(self.source[key]) for key in ("name", "split") if key in self.source]
        samples = f"{len(self)} samples of {validation.shapes_of(self.store.first, tuple)}"
        return f"LabelledData({', '.join([samples, kind, self.store.place, *source])})"

    def _labelled(self, where: validation.Positions, inputs: Inputs, labels: Tensor | None) -> tuple[Inputs, Tensor]:
        if self._labels is not None:
            return inputs, validation.rows(self._labels, where)
        return inputs, check_targets(labels, validation.as_list(where), self._given_classes)
