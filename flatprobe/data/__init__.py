"""Labelled data: ordered, repeatable, sample-indexed batches, in memory or streamed."""

from flatprobe.data.labelled import Batch, LabelledData, labelled

__all__ = ["Batch", "LabelledData", "labelled"]
