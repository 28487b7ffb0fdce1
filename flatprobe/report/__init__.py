"""Reports: results as one self-contained HTML page."""

import sys
from types import ModuleType
from typing import Any

from flatprobe.report.page import report
from flatprobe.studies.records import load_records

__all__ = ["load_records", "report"]


class _Room(ModuleType):
    """This room, called as `report`: importing it sets `flatprobe.report`, which hides the function of that name."""

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        return report(*arguments, **options)


sys.modules[__name__].__class__ = _Room
