"""Statements with two sides: one row per statement and problem, judged by the worst problem."""

from typing import Any

import pandas as pd

from analyses.reproduction import Outcome
from analyses.rules import exact


def side(statement: str, left: float, right: float, **problem: Any) -> dict[str, Any]:
    """A row of a table: a statement, its two sides, and the problem that they were evaluated on."""
    return {"statement": statement, **problem, "left": float(left), "right": float(right)}


def _problems(frame: pd.DataFrame, statement: str) -> pd.DataFrame:
    found = frame[frame["statement"] == statement]
    if found.empty:
        msg = f"statement must be one of {', '.join(frame['statement'].unique())}, got {statement!r}"
        raise ValueError(msg)
    return found


def equal(frame: pd.DataFrame, statement: str, rule: str, *, tolerance: float, **options: Any) -> Outcome:
    """left = right on each problem; the effect is the largest relative difference.

    A right side below 1e-6 of the largest one is compared with that, since a relative difference from 0 has no meaning.
    """
    found = _problems(frame, statement)
    size = found["right"].abs()
    differences = (found["left"] - found["right"]).abs() / size.clip(lower=max(1e-6 * size.max(), 1e-300))
    worst = float(differences.max(skipna=False))  # NaN on one problem refutes
    return exact(rule, worst, tolerance=tolerance, problems=len(found), **options)


def below(frame: pd.DataFrame, statement: str, rule: str, *, tolerance: float = 1e-9, **options: Any) -> Outcome:
    """left <= right on each problem, both positive; the effect is the largest left / right."""
    found = _problems(frame, statement)
    worst = float((found["left"] / found["right"]).max(skipna=False))  # NaN on one problem refutes
    return exact(rule, worst, tolerance=1 + tolerance, problems=len(found), unit="ratio", **options)
