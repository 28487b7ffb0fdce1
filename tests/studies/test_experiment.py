"""Experiments: keys, grids, networks and data from JSON."""

import json

import numpy as np
import pytest
import torch

import flatprobe as fp
from flatprobe.studies.sweep_file import group
from tests.helpers.sweeps import base, linear

EXPERIMENT = base()


def test_pinned_the_key_is_the_hash_of_the_canonical_json() -> None:
    described = EXPERIMENT.as_json()
    assert described["seeds"] == {"data": 0, "network": 0, "order": 0}
    assert EXPERIMENT.key == "3d6f574135d15522"
    shuffled = json.loads(json.dumps(dict(reversed(described.items()))))
    assert fp.Experiment.from_json(shuffled).key == EXPERIMENT.key
    assert fp.Experiment.from_json(json.loads(json.dumps(described))) == EXPERIMENT
    assert len({EXPERIMENT, fp.Experiment.from_json(described)}) == 1


def test_property_every_setting_is_part_of_the_key() -> None:
    changes = {
        "network.widths": [9],
        "network.activation": "tanh",
        "data.samples": 61,
        "data.random_labels": 0.5,
        "stages.0.learning_rate": 0.2,
        "stages.0.name": "other",
        "seeds.data": 1,
        "seeds.network": 1,
        "seeds.order": 1,
    }
    keys = [EXPERIMENT.vary({name: [value]})[0].key for name, value in changes.items()]
    assert len({EXPERIMENT.key, *keys}) == 1 + len(changes)


def test_closed_form_a_grid_is_a_product_and_a_tuple_varies_together() -> None:
    grid = EXPERIMENT.vary({"data.samples": (10, 20), ("seeds.network", "seeds.order"): [(0, 5), (1, 6)]})
    found = [(e.data["samples"], e.seeds["network"], e.seeds["order"]) for e in grid]
    assert found == [(10, 0, 5), (10, 1, 6), (20, 0, 5), (20, 1, 6)]
    assert [len(part) for part in group(grid, ["seeds.network", "seeds.order"])] == [2, 2]
    assert EXPERIMENT.data["samples"] == 60  # the base is not changed


def test_numpy_values_and_tuples_become_json() -> None:
    other = EXPERIMENT.vary({"data.samples": np.array([60]), "network.widths": [(np.int64(8),)]})[0]
    assert other.key == EXPERIMENT.key


@pytest.mark.parametrize(
    ("name", "value", "kind", "match"),
    [
        ("network", {"name": "mpl"}, ValueError, "the network's name must be one of 'mlp'"),
        ("network", {"name": "mlp", "width": 3}, ValueError, "network 'mlp' must have entries among .*, got width"),
        ("network", {"widths": [3]}, ValueError, "network must be a dictionary with a name"),
        ("network", {"name": "mlp", "mean": 0.5}, ValueError, "both mean and std"),
        ("data", {"name": "digits", "sample": 3}, ValueError, "got sample"),
        ("data", {"name": "digits", "samples": 0}, ValueError, "samples must be a whole number above 0"),
        ("data", {"name": "digits", "draw": "last"}, ValueError, "draw must be one of 'uniform', 'balanced', 'first'"),
        ("data", {"name": "digits", "validation": 5}, ValueError, "must have a pool"),
        ("stages", [], ValueError, "at least one dictionary"),
        ("stages", [{"epochs": 1, "seed": 3}], ValueError, "stages must be without seed"),
        ("stages", [{"name": "a"}, {"name": "a"}], ValueError, "distinct names"),
        ("stages", [{"name": "a/b"}], ValueError, "can name a folder"),
        ("stages", [{"name": "complete.json"}], ValueError, "can name a folder"),
        ("stages", [{"name": ""}], ValueError, "can name a folder"),
        ("stages", [{"name": "initial"}], ValueError, "none may be 'initial'"),
        ("stages", [{"epoch": 2}], ValueError, r"arguments of fp\.train, .*epochs.*, got epoch"),
        (
            "data",
            {"name": "digits", "random_labels": 2},
            ValueError,
            "random_labels must be a fraction between 0 and 1",
        ),
        ("data", {"name": "digits", "random_labels": "0.5"}, ValueError, "random_labels must be a fraction"),
        ("network", {"name": "mlp", "unit_rows": []}, ValueError, "unit_rows must be True or a list of layers"),
        ("stages", [{"penalties": [[0.1, lambda: 0]]}], TypeError, "Name functions package.module:name"),
        ("stages", [{"learning_rate": float("nan")}], TypeError, "JSON"),
        ("seeds", {"orders": 1}, ValueError, "seeds must be among data, network, order, got orders"),
        ("seeds", {"order": 0.5}, ValueError, "order"),
    ],
)
def test_a_wrong_entry_is_named(name: str, value: object, kind: type[Exception], match: str) -> None:
    with pytest.raises(kind, match=match):
        fp.Experiment(**{**EXPERIMENT.as_json(), name: value})


def test_a_wrong_name_of_a_grid_is_named() -> None:
    with pytest.raises(ValueError, match=r"'stages\.3\.epochs' must be a dotted name"):
        EXPERIMENT.vary({"stages.3.epochs": (1,)})
    with pytest.raises(TypeError, match=r"the values of 'data\.samples' must be a list, got 50"):
        EXPERIMENT.vary({"data.samples": 50})
    pair = ("seeds.network", "seeds.order")
    for entry in (0, [0, 0, 0]):
        with pytest.raises(TypeError, match=r"must be lists of 2 values, got"):
            EXPERIMENT.vary({pair: [entry]})
    with pytest.raises(TypeError, match="grid must be a dictionary"):
        EXPERIMENT.vary([])
    with pytest.raises(ValueError, match=r"an experiment must be an object .*, got \[\]"):
        fp.Experiment.from_json([])
    with pytest.raises(ValueError, match="an experiment must have the entries"):
        fp.Experiment.from_json({"network": {"name": "mlp"}})


def test_slow_reference_the_network_is_that_of_its_builder() -> None:
    data = fp.load_data("digits")
    scaled = EXPERIMENT.vary(
        {"network.scale": (10,), "network.mean": (0.3,), "network.std": (0.5,), "seeds.network": (4,)}
    )
    network = scaled[0].build()
    alone = fp.Normalised(fp.models.scaled(fp.models.mlp(data.input_shape, widths=(8,), seed=4), 10), 0.3, 0.5)
    inputs = data.inputs[:3]
    assert torch.equal(network.eval()(inputs), alone.eval()(inputs))
    rows = EXPERIMENT.vary({"network.unit_rows": (True,)})[0].build()
    weights = [module.weight for module in rows.modules() if isinstance(module, torch.nn.Linear)]
    assert all(torch.allclose(weight.norm(dim=1), torch.ones(len(weight))) for weight in weights)


def test_property_draws_are_nested_seeded_and_within_the_pool() -> None:
    small, large = (base(samples=n, pool=300).load() for n in (50, 200))
    assert torch.equal(small.inputs, large.inputs[:50])
    assert not torch.equal(small.inputs, base(samples=50, pool=300).vary({"seeds.data": (1,)})[0].load().inputs)
    whole = fp.load_data("digits")
    first = base(samples=50, draw="first").load()
    assert torch.equal(first.inputs, whole.inputs[:50])
    pool = {tuple(row.flatten().tolist()) for row in whole.inputs[:300]}
    assert {tuple(row.flatten().tolist()) for row in large.inputs} <= pool
    balanced = base(samples=60, draw="balanced").load()
    assert balanced.labels.bincount().tolist() == [6] * 10


def test_closed_form_validation_samples_follow_the_pool() -> None:
    held_out = base(pool=300, validation=40).load("validation")
    assert torch.equal(held_out.inputs, fp.load_data("digits").inputs[300:340])


def test_random_labels_change_the_training_data_alone() -> None:
    natural, random = (base(random_labels=fraction) for fraction in (0.0, 1.0))
    assert torch.equal(natural.load().inputs, random.load().inputs)
    assert not torch.equal(natural.load().labels, random.load().labels)
    assert torch.equal(natural.load("test").labels, random.load("test").labels)


def test_networks_and_data_of_somebody_else() -> None:
    experiment = fp.Experiment(
        network={"name": "tests.helpers.sweeps:linear", "gain": 2.0},
        data={"name": "tests.helpers.sweeps:stripes", "width": 5, "samples": 10},
        stages=[{"epochs": 1}],
    )
    assert experiment.load().input_shape == (5,)
    network = experiment.build()
    assert torch.equal(network.weight, linear(input_shape=(5,), classes=5, seed=0, gain=2.0).weight)


@pytest.mark.parametrize(
    ("data", "match"),
    [
        ({"samples": 99999}, "samples must be at most the 1500 samples"),
        ({"pool": 99999}, "must be at most 1500, the number of samples of the split, got 99999"),
        ({"pool": 1490, "validation": 20}, "must be at most 1500, the number of samples of the split, got 1510"),
        ({"samples": 61, "draw": "balanced"}, "samples must be a multiple of the 10 classes"),
    ],
)
def test_data_that_are_not_there(data: dict[str, object], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        base(**data).load("validation" if "validation" in data else "train")


def test_functions_that_cannot_be_imported() -> None:
    with pytest.raises(ValueError, match="that every process can import"):
        fp.Experiment(network={"name": "no.such:thing"}, data={"name": "digits"}, stages=[{}]).build()
    with pytest.raises(TypeError, match="must return LabelledData, got a Linear"):
        fp.Experiment(network={"name": "mlp"}, data={"name": "tests.helpers.sweeps:give_layer"}, stages=[{}]).load()
