"""Labelled data: ordered, repeatable, sample-indexed batches, in memory or streamed."""

from flatprobe.data.labelled import Batch, LabelledData, checked_data

__all__ = ["Batch", "LabelledData", "checked_data"]
