"""Contexts and threads of the caller: they change no number."""

import threading
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import flatprobe as fp
from flatprobe.utils.threads import SMALL, thread_count
from tests.helpers import strange

DATA = strange.data(40)


CALLS: dict[str, Any] = {
    "risk": lambda m, d: [fp.EmpiricalRisk(m, d)().loss],
    "gradient": lambda m, d: next(iter(fp.EmpiricalRisk(m, d).gradient().values())),
    "radius": lambda m, d: fp.flatness_radius(fp.EmpiricalRisk(m, d), directions=2).radii,
    "slice": lambda m, d: fp.random_slice(fp.EmpiricalRisk(m, d), dimensions=1, steps=3).loss,
    "trace": lambda m, d: [fp.hessian_trace(fp.EmpiricalRisk(m, d), draws=2).trace],
    "sharpness": lambda m, d: [fp.worst_case_sharpness(fp.EmpiricalRisk(m, d)).sharpness],
    "margins": lambda m, d: fp.functional_margins(m, d).values,
    "jacobian": lambda m, d: fp.jacobian_norms(m, d).values,
    "geometric": lambda m, d: fp.geometric_margins(m, d, upper=("ddn",), steps=5).upper,
    "certified": lambda m, d: fp.geometric_margins(m, d, upper=("ddn",), steps=5).lower,
    "robustness": lambda m, d: fp.gaussian_robustness(m, d, gammas=[0.5], draws=5).error,
    "smoothed": lambda m, d: fp.smoothed_certificate(m, d, sigma=0.2, draws=30).radius,
    "points": lambda m, d: fp.adversarial_points(m, d, steps=5).points,
    "accuracy": lambda m, d: fp.adversarial_accuracy(m, d, budgets=[0.3], steps=3).accuracy,
    "norms": lambda m, _: [fp.weight_norms(m, (6,)).path],
    "trained": lambda m, d: [fp.train(m, d, epochs=2).history[-1]["train_loss"]],
}


@pytest.mark.parametrize("call", CALLS)
def test_property_a_surrounding_context_changes_no_number(call: str) -> None:
    model = nn.Sequential(nn.Linear(6, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 3))
    data = fp.LabelledData(DATA.inputs.float(), DATA.labels)
    expected = torch.as_tensor(CALLS[call](model.eval(), data))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(torch.as_tensor(CALLS[call](model, data)), expected)
        assert torch.is_autocast_enabled("cpu")
    with torch.inference_mode():
        inside = fp.LabelledData(DATA.inputs.float().clone(), DATA.labels.clone())
        assert torch.equal(torch.as_tensor(CALLS[call](model, inside)), expected)
    with torch.no_grad():
        assert torch.equal(torch.as_tensor(CALLS[call](model, data)), expected)


def _in_threads(*calls: Any) -> list[Any]:
    found: list[Any] = [None] * len(calls)

    def work(place: int) -> None:
        try:
            found[place] = calls[place]()
        except Exception as error:  # noqa: BLE001 - compared below
            found[place] = error

    threads = [threading.Thread(target=work, args=(place,)) for place in range(len(calls))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


@pytest.mark.parametrize("call", ["radius", "trace", "jacobian", "certified"])
@pytest.mark.parametrize("shared", [False, True])
def test_property_probes_in_two_threads_give_the_numbers_of_one(call: str, shared: bool) -> None:
    names = ("float32", "float32") if shared else ("sequential", "encoder")
    if call == "certified" and not shared:
        names = ("sequential", "plain")
    models = [strange.network(name) for name in names]
    if shared:
        models = [models[0], models[0]]
    expected = [torch.as_tensor(CALLS[call](model, DATA)) for model in models]
    for _ in range(3):
        found = _in_threads(*(lambda model=model: torch.as_tensor(CALLS[call](model, DATA)) for model in models))
        assert all(
            isinstance(part, Tensor) and torch.equal(part, own) for part, own in zip(found, expected, strict=True)
        )
    assert torch.backends.mha.get_fastpath_enabled()
    assert torch.backends.cuda.flash_sdp_enabled()


def test_property_one_risk_shared_by_two_threads_is_evaluated_by_one_at_a_time() -> None:
    risk = fp.EmpiricalRisk(strange.network("plain"), DATA)
    points = [{name: (1 + k) * value for name, value in risk.center.items()} for k in range(2)]
    expected = [risk(point) for point in points]
    found = _in_threads(*(lambda point=point: [risk(point) for _ in range(50)] for point in points))
    assert found == [[own] * 50 for own in expected]


SEEN: set[int] = set()


class Asks(nn.Module):
    """Notes torch's number of threads in each pass."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layer, self.head = nn.Linear(6, width), nn.Linear(width, 3)

    def forward(self, x: Tensor) -> Tensor:
        SEEN.add(torch.get_num_threads())
        z: Tensor = self.head(self.layer(x).relu())
        return z


@pytest.mark.parametrize("call", [name for name in CALLS if name not in {"trained", "norms", "certified"}])
def test_a_small_dense_network_is_measured_by_one_thread(call: str) -> None:
    risk = fp.EmpiricalRisk(strange.built(Asks, 8), DATA)
    with thread_count(2):
        SEEN.clear()
        CALLS[call](strange.built(Asks, 8), DATA)
        if call != "risk":  # The construction of a risk is no measurement.
            assert 1 in SEEN
        SEEN.clear()
        risk()
        assert {1} == SEEN
        assert torch.get_num_threads() == 2


def test_the_record_names_the_threads_of_the_measurement_and_the_number_is_restored() -> None:
    small, large = strange.built(Asks, 8), strange.built(Asks, SMALL // 100)
    with thread_count(2):
        for model, size, expected in ((small, None, 1), (small, SMALL, 2), (large, 5, 1), (large, 40, 2)):
            SEEN.clear()
            margins = fp.functional_margins(model, DATA, batch_size=size)
            radii = fp.random_slice(fp.EmpiricalRisk(model, DATA, batch_size=size), dimensions=1, steps=3)
            for result in (margins, radii):
                assert result.settings["environment"]["threads"] == expected
            assert torch.get_num_threads() == 2
        with pytest.raises(ValueError, match="two finite numbers"):
            fp.adversarial_accuracy(small, DATA, budgets=[1.0], box=(1.0, 0.0))
        assert torch.get_num_threads() == 2
