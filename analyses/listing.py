"""The list of items: state, verdict by preset, cost."""

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from analyses.record import RECORDS, read_record
from analyses.registry import Item
from analyses.reproduction import VERDICTS, Unavailable

SCALES = ("paper", "cpu")  # presets whose verdict counts, the first that was run; quick runs do not count


def rows(items: Iterable[Item], records: Path = RECORDS) -> list[dict[str, Any]]:
    """One row per item.

    Args:
        items: of the registry.
        records: folder of the records.

    Returns:
        id, source, claim, state ("run", "ready" without a record, "open", "unavailable"), verdicts by preset, verdict
        (of the largest preset that was run; None if none was), cost, and the reason of an item that is not run.
    """
    return [_row(item, records) for item in items]


def counts(listed: Sequence[dict[str, Any]]) -> dict[str, int]:
    """Number of items per verdict, and per state of those without one."""
    found = Counter(row["verdict"] or row["state"] for row in listed)
    return {name: found[name] for name in (*VERDICTS, "ready", "open", "unavailable") if found[name]}


def _row(item: Item, records: Path) -> dict[str, Any]:
    common = {"id": item.id, "source": item.source, "claim": item.claim}
    if isinstance(item, Unavailable):
        return common | {"state": item.state, "verdicts": {}, "verdict": None, "cost": "", "reason": item.reason}
    verdicts = {}
    for preset in item.presets:
        try:
            verdicts[preset] = read_record(item.id, preset, records)[1]["verdict"]
        except FileNotFoundError:
            continue
    verdict = next((verdicts[preset] for preset in SCALES if preset in verdicts), None)
    state = "run" if verdict else "ready"
    return common | {"state": state, "verdicts": verdicts, "verdict": verdict, "cost": item.cost, "reason": ""}
