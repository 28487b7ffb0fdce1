"""Labelled data in ordered, repeatable, sample-indexed batches."""

from flatprobe.data.batch import Batch
from flatprobe.data.checks import check_classes, check_data
from flatprobe.data.labelled import LabelledData
from flatprobe.data.validation import parts_of

__all__ = ["Batch", "LabelledData", "check_classes", "check_data", "parts_of"]
