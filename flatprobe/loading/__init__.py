"""Data sets by name: bundled, from a folder, or from the Hugging Face hub."""

from flatprobe.loading.load import load_data

__all__ = ["load_data"]
