"""`python -m figures.tables`: rewrite the tables of the documentation."""

from figures.tables.benchmarks import BENCHMARKS
from figures.tables.markdown import DOCS
from figures.tables.peers import PEERS
from figures.tables.reproductions import REPRODUCTIONS

TABLES = PEERS | BENCHMARKS | REPRODUCTIONS


def main() -> None:
    """Write one file per table."""
    DOCS.mkdir(parents=True, exist_ok=True)
    for name, build in TABLES.items():
        path = DOCS / f"{name}.txt"
        path.write_text(build(), encoding="utf-8")
        print(path)


if __name__ == "__main__":
    main()
