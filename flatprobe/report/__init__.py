"""Reports: results as one self-contained HTML page."""

from flatprobe.report.page import write_report
from flatprobe.studies.records import load_records

__all__ = ["load_records", "write_report"]
