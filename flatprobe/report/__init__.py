"""Reports: results as one self-contained HTML page."""

from flatprobe.report.page import report
from flatprobe.studies.records import load_records

__all__ = ["load_records", "report", "write_report"]

write_report = report
