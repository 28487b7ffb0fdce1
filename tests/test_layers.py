"""The rooms of the house: who may import whom, how light the top is, and that its names are what it says."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import flatprobe

ROOT = Path(flatprobe.__file__).parent
LEAVES = {
    "atomic",
    "callers",
    "checks",
    "class_names",
    "contexts",
    "copies",
    "derivatives",
    "differentiable",
    "directions",
    "files",
    "first_order",
    "gram",
    "graph",
    "inputs",
    "inspection",
    "intervals",
    "jacobians",
    "kernels",
    "lanczos",
    "layer_norms",
    "lipschitz",
    "losses",
    "matching",
    "memory",
    "modules",
    "network",
    "objects",
    "operators",
    "pairs",
    "parametrised",
    "path_norm",
    "pickles",
    "plain_functions",
    "pretrained",
    "reparametrise",
    "results",
    "rng",
    "search",
    "sequences",
    "slopes",
    "slots",
    "storage",
    "threads",
    "watching",
    "weights",
}
ALLOWED = {
    **dict.fromkeys(LEAVES, LEAVES),
    "data": LEAVES,
    "loading": LEAVES | {"data"},
    "models": LEAVES,
    "outputs": LEAVES | {"data"},
    "risk_function": LEAVES,
    "lines": LEAVES | {"data", "risk_function"},
    "risk": LEAVES | {"data", "lines", "outputs", "risk_function"},
    "batch_norm": LEAVES | {"data", "risk", "risk_function"},
    "inactive": LEAVES | {"data", "risk", "risk_function"},
    "curvature": LEAVES | {"data", "risk", "risk_function"},
    "endpoints": LEAVES | {"data", "risk", "risk_function"},
    "embedding": LEAVES | {"data"},
    "bounds": LEAVES | {"data", "risk", "risk_function"},
    "ownership": LEAVES | {"data"},
    "checkpoints": LEAVES | {"data", "models", "ownership"},
    "attacks": LEAVES | {"data", "models"},
}
MEASURED = {*ALLOWED}
ALLOWED |= {
    "probes": MEASURED,
    "training": MEASURED,
    "callbacks": MEASURED | {"probes"},
    "studies": MEASURED | {"probes", "training"},
    "plotting": LEAVES | {"probes", "studies", "bounds"},
    "report": MEASURED | {"probes", "training", "studies", "plotting"},
    "cli": MEASURED | {"probes", "training", "studies", "plotting", "report"},
}
# Loaded only by what needs them, so that importing the probes is light.
HEAVY = {"pandas", "pyarrow", "matplotlib", "seaborn", "mpltern", "datasets", "sklearn", "rich", "jinja2", "cyclopts"}
HEAVY |= {"lightning", "pytorch_lightning", "transformers", "accelerate"}
TOP_LEVEL_ALLOWED = {  # by room, or by file
    "callbacks/lightning.py": {"lightning"},
    "callbacks/transformers.py": {"transformers"},
    "plotting": {"matplotlib", "seaborn", "mpltern"},
    "report": {"jinja2"},
    "cli": {"cyclopts"},
}


def room(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def imports(path: Path, *, top_only: bool = False) -> set[str]:
    tree = ast.parse(path.read_text())
    tries = [node for node in tree.body if isinstance(node, ast.Try)]  # an optional library's import is in one
    nodes = [*tree.body, *(inner for node in tries for inner in node.body)] if top_only else list(ast.walk(tree))
    names: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


FILES = [path for path in sorted(ROOT.rglob("*.py")) if path != ROOT / "__init__.py"]


def test_every_room_is_known() -> None:
    assert {room(path) for path in FILES} <= {*ALLOWED}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_follow_the_house(path: Path) -> None:
    own = room(path)
    used = {name.split(".")[1] for name in imports(path) if name.startswith("flatprobe.")}
    assert used - {own, "__init__"} <= ALLOWED[own], f"{path.name} in {own} imports {used - ALLOWED[own] - {own}}"
    assert not any(name.split(".")[0] in {"analyses", "figures", "tests"} for name in imports(path))
    heavy = {name.split(".")[0] for name in imports(path, top_only=True)} & HEAVY
    name = path.relative_to(ROOT).as_posix()
    assert heavy <= TOP_LEVEL_ALLOWED.get(name, TOP_LEVEL_ALLOWED.get(own, set())), (
        f"{path.name} imports {heavy} at its top"
    )


@pytest.mark.parametrize("path", sorted((ROOT / "probes").glob("*.py")), ids=lambda path: path.name)
def test_probes_do_not_import_each_other(path: Path) -> None:
    others = {name.split(".")[2] for name in imports(path) if name.startswith("flatprobe.probes.")}
    assert others <= {"samples", "rounding", "directed"}  # what the per-sample probes share is no probe


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
    assert not loaded_by("import flatprobe; flatprobe.callbacks") & (HEAVY | {"torch", "numpy", "scipy"})


def test_the_public_names_are_there_and_documented() -> None:
    for name in flatprobe.__all__:
        assert getattr(flatprobe, name).__doc__, name
    assert set(flatprobe.__all__) <= set(dir(flatprobe))
    with pytest.raises(AttributeError, match="has no attribute 'flatness'; it has"):
        _ = flatprobe.flatness
