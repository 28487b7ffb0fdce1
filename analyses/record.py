"""Records of reproductions: the table of an item, with claim, outcomes and verdict in its metadata."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from analyses.reproduction import REFUTED, Outcome, Reproduction, overall
from flatprobe.utils.results import environment, file_stem
from flatprobe.utils.tables import read_table, write_table

ROOT = Path(__file__).parents[1]
RECORDS = ROOT / "records"


def record_path(name: str, preset: str, folder: Path = RECORDS) -> Path:
    """The file of an item, by its id, and a preset."""
    return folder / f"{file_stem(f'{name}-{preset}')}.parquet"


def describe(reproduction: Reproduction, preset: str, outcomes: Sequence[Outcome], **run: object) -> dict[str, Any]:
    """The metadata of a record.

    Args:
        reproduction: the item.
        preset: name of the preset.
        outcomes: of its rules.
        **run: of this run: `command`, `seconds`, `experiments` and others; `environment` by default the present one.

    Returns:
        JSON values.
    """
    scale = preset in reproduction.at_scale
    return {
        "kind": "reproduction",
        "id": reproduction.id,
        "source": reproduction.source,
        "claim": reproduction.claim,
        "published": [dict(row) for row in reproduction.published],
        "preset": preset,
        "settings": _settings(reproduction.presets[preset]),
        "published_scale": scale,
        "outcomes": [
            _plain(asdict(outcome)) | {"verdict": outcome.verdict(published_scale=scale)} for outcome in outcomes
        ],
        "verdict": overall(outcomes, published_scale=scale),
        "reasons": {name: reason for name, reason in reproduction.reasons.items() if name in _rules(outcomes)},
        "differs": reproduction.differs,
        "cost": reproduction.cost,
        "environment": environment(),
    } | run


def unexplained(metadata: Mapping[str, Any]) -> list[str]:
    """The rules of a record that are refuted, count in the verdict, and have no reason."""
    return [
        outcome["rule"]
        for outcome in metadata["outcomes"]
        if outcome["verdict"] == REFUTED and not outcome["beside"] and not metadata["reasons"].get(outcome["rule"])
    ]


def write_record(frame: pd.DataFrame, metadata: Mapping[str, Any], folder: Path = RECORDS) -> Path:
    """Write the table of an item with its metadata, and return the file."""
    return write_table(frame, record_path(metadata["id"], metadata["preset"], folder), metadata)


def read_record(name: str, preset: str, folder: Path = RECORDS) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Table and metadata of an item, by its id, and a preset.

    Raises:
        FileNotFoundError: if the item was not run at this preset.
    """
    return read_table(record_path(name, preset, folder))


def read_outcomes(metadata: Mapping[str, Any]) -> list[Outcome]:
    """The outcomes of a record, as its rules returned them."""
    return [Outcome(**_restore(entry)) for entry in metadata["outcomes"]]


def _settings(preset: Any) -> dict[str, Any]:
    return asdict(preset) if is_dataclass(preset) and not isinstance(preset, type) else dict(preset)


def _rules(outcomes: Sequence[Outcome]) -> set[str]:
    return {outcome.rule for outcome in outcomes}


def _plain(entry: Mapping[str, Any]) -> dict[str, Any]:
    """JSON has no NaN and no infinity: they are words."""
    return {name: _word(value) for name, value in entry.items()}


def _word(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_word(bound) for bound in value]
    return str(float(value)) if isinstance(value, float) and not math.isfinite(value) else value


def _restore(entry: Mapping[str, Any]) -> dict[str, Any]:
    found = {name: value for name, value in entry.items() if name != "verdict"}
    for name in ("effect", "published"):
        found[name] = None if found[name] is None else float(found[name])
    for name in ("interval", "band"):
        found[name] = None if found[name] is None else tuple(map(float, found[name]))
    return found
