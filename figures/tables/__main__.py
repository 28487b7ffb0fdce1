"""`python -m figures.tables`: rewrite the tables of the documentation, and README's rows of reproductions."""

from figures.tables.benchmarks import BENCHMARKS
from figures.tables.markdown import DOCS
from figures.tables.peers import PEERS
from figures.tables.reproductions import README, REPRODUCTIONS, rewrite_readme

TABLES = PEERS | BENCHMARKS | REPRODUCTIONS


def main() -> None:
    """Write one file per table, and README."""
    DOCS.mkdir(parents=True, exist_ok=True)
    for name, build in TABLES.items():
        path = DOCS / f"{name}.txt"
        path.write_text(build(), encoding="utf-8")
        print(path)
    README.write_text(rewrite_readme(README.read_text(encoding="utf-8")), encoding="utf-8")
    print(README)


if __name__ == "__main__":
    main()
