"""The rooms of the package: which may import which, no circle among files, a light import, documented public names."""

import ast
import subprocess
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import flatprobe
from tests.helpers.packages import HEAVY, ROOT

MEASURED = {"utils", "data", "functional", "network", "attacks", "risk", "graph", "models"}
COMBINED = MEASURED | {"probes", "training", "callbacks"}
MAY_IMPORT = {  # CONTRIBUTING.md has the same table; a room that is not in a row is not importable there
    "utils": set(),
    "data": {"utils"},
    "functional": {"utils"},
    "network": {"utils", "data"},
    "attacks": {"utils", "functional"},
    "risk": {"utils", "data", "functional", "network"},
    "graph": {"utils", "network"},
    "models": {"utils", "network"},
    "bounds": {"utils", "data", "risk"},
    "probes": MEASURED,
    "training": MEASURED,
    "callbacks": MEASURED,
    "studies": COMBINED,
    "plotting": {"utils", "bounds", "probes", "studies"},
    "report": COMBINED | {"bounds", "studies", "plotting"},
    "cli": COMBINED | {"bounds", "studies", "plotting", "report", "flatprobe"},  # it calls the public names
}
TOP_LEVEL_ALLOWED = {  # by room, or by file
    "callbacks/lightning.py": {"lightning"},
    "callbacks/transformers.py": {"transformers"},
    "plotting": {"matplotlib", "seaborn", "mpltern"},
    "report": {"jinja2"},
    "cli": {"cyclopts"},
}


FILES = sorted(ROOT.rglob("*.py"))


def module(path: Path, root: Path = ROOT) -> str:
    return ".".join(("flatprobe", *path.relative_to(root).with_suffix("").parts)).removesuffix(".__init__")


def imports(path: Path, *, top_only: bool = False) -> set[str]:
    tree = ast.parse(path.read_text())
    tries = [node for node in tree.body if isinstance(node, ast.Try)]  # an optional library's import is in one
    nodes = [*tree.body, *(inner for node in tries for inner in node.body)] if top_only else list(ast.walk(tree))
    names: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def import_graph(root: Path) -> dict[str, set[str]]:
    """Each module of the package and the modules of the package that it imports, at its top or within a function."""
    modules = {module(path, root): path for path in root.rglob("*.py")}
    graph: dict[str, set[str]] = {}
    for name, path in modules.items():
        found = {used if used in modules else used.rpartition(".")[0] for used in imports(path)}
        graph[name] = {used for used in found if used.split(".")[0] == "flatprobe"} - {name}
    return graph


def violations(graph: dict[str, set[str]]) -> list[str]:
    """What breaks the table, module by module, and the circle among modules if there is one."""
    found = []
    for name in sorted(graph.keys() - {"flatprobe", "flatprobe.__main__"}):  # the public face may name everything
        room = name.split(".")[1]
        for used in sorted(graph[name]):
            other = used.split(".")[1] if "." in used else "flatprobe"
            if other not in MAY_IMPORT[room] | {room}:
                found.append(f"{name} imports {used}; {room} may import {sorted(MAY_IMPORT[room])}")
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        found.append(f"circle: {' -> '.join(error.args[1])}")
    return found


def test_the_rooms_are_those_of_the_table() -> None:
    assert {path.parent.name for path in ROOT.glob("*/__init__.py")} == {*MAY_IMPORT}
    assert sorted(path.name for path in ROOT.glob("*.py")) == ["__init__.py", "__main__.py"]  # no loose module


def test_every_import_follows_the_table_without_a_circle() -> None:
    graph = import_graph(ROOT)
    assert len(graph) > 200
    assert violations(graph) == []


@pytest.mark.parametrize(
    ("planted", "match"),
    [
        ({"utils/arguments.py": "from flatprobe.risk.empirical import EmpiricalRisk"}, "utils may import []"),
        ({"probes/margins.py": "def f():\n    from flatprobe.training.loop import train"}, "probes may import"),
        ({"functional/losses.py": "import flatprobe.network.weights"}, "functional may import ['utils']"),
        ({"probes/margins.py": "from flatprobe import train"}, "margins imports flatprobe;"),
        (
            {
                "utils/arguments.py": "from flatprobe.utils import rng",
                "utils/rng.py": "from flatprobe.utils.arguments import whole",
            },
            "circle: flatprobe.utils.",
        ),
    ],
    ids=["upward", "within a function", "sideways", "the public face", "circle within a room"],
)
def test_a_planted_violation_is_seen(planted: dict[str, str], match: str, tmp_path: Path) -> None:
    for path in FILES:
        copy = tmp_path / path.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_text(path.read_text())
    for name, line in planted.items():
        copy = tmp_path / name
        copy.write_text(f"{copy.read_text()}\n{line}\n")
    assert any(match in found for found in violations(import_graph(tmp_path)))


def test_heavy_libraries_are_imported_where_they_are_needed() -> None:
    for path in FILES:
        name, room = path.relative_to(ROOT).as_posix(), path.relative_to(ROOT).parts[0]
        heavy = {used.split(".")[0] for used in imports(path, top_only=True)} & HEAVY
        allowed = TOP_LEVEL_ALLOWED.get(name, TOP_LEVEL_ALLOWED.get(room, set()))
        assert heavy <= allowed, f"{name} imports {heavy} at its top"
        assert not any(used.split(".")[0] in {"analyses", "figures", "tests"} for used in imports(path)), name


@pytest.mark.parametrize("path", sorted((ROOT / "probes").glob("*.py")), ids=lambda path: path.name)
def test_probes_do_not_import_each_other(path: Path) -> None:
    others = {name.split(".")[2] for name in imports(path) if name.startswith("flatprobe.probes.")}
    shared = {"coefficients", "directional", "per_sample", "rounding", "subjects", "surfaces"}  # these are no probes
    assert others <= shared


def test_every_generator_is_made_in_rng_and_the_global_state_is_nobodys() -> None:
    for path in FILES:
        text = path.read_text()
        if path.name != "rng.py":
            assert "torch.Generator(" not in text, path
        assert "set_default_dtype" not in text, path
        assert "np.random.seed" not in text, path


def loaded_by(statement: str) -> set[str]:
    code = f"import sys; {statement}; print(*sorted({{m.split('.')[0] for m in sys.modules}}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT.parent)
    return set(done.stdout.splitlines()[-1].split())


def test_importing_flatprobe_is_light() -> None:
    assert not loaded_by("import flatprobe") & (HEAVY | {"torch", "numpy", "scipy"})
    assert not loaded_by("import flatprobe; flatprobe.flatness_radius") & (HEAVY | {"scipy"})
    assert not loaded_by("import flatprobe; flatprobe.load_data('digits')") & (HEAVY | {"scipy"})
    assert loaded_by("import flatprobe.cli.pages") & (HEAVY | {"scipy"}) == {"cyclopts"}
    assert not loaded_by("import flatprobe; flatprobe.callbacks") & (HEAVY | {"torch", "numpy", "scipy"})


def test_the_public_names_are_there_and_documented() -> None:
    for name in flatprobe.__all__:
        assert getattr(flatprobe, name).__doc__, name
    assert set(flatprobe.__all__) <= set(dir(flatprobe))
    with pytest.raises(AttributeError, match="has no attribute 'flatness'; it has"):
        _ = flatprobe.flatness
