"""Labelled data: ordered, repeatable, sample-indexed batches, in memory or streamed."""

from flatprobe.data.batch import Batch
from flatprobe.data.checks import checked_data
from flatprobe.data.labelled import LabelledData
from flatprobe.data.validation import parts_of

__all__ = ["Batch", "LabelledData", "checked_data", "parts_of"]
