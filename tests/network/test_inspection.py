"""What is seen of a network in its first batch: company, randomness, layout, what it writes to, what it returns."""

import os
import subprocess
import sys
import threading
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import flatprobe as fp
from flatprobe.network.network import Network
from tests.helpers import cases, strange

DATA = strange.data(40)


class Company(strange.Nested):
    """Its logits depend on the other samples of the batch."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how

    def forward(self, x: Tensor) -> Tensor:
        if self.how == "max":
            x = 3 * x / x.abs().max()
        z = self.body(x)
        if self.how == "mean":
            z = z - z.mean(0)
        elif self.how == "softmax":
            z = z * z.softmax(0)
        elif self.how == "batch norm":
            z = F.batch_norm(z, None, None, training=True)
        elif self.how == "before":
            z = z.cumsum(0)
        elif self.how == "neighbour":
            z = z + z.roll(1, 0)
        return self.head(z)  # type: ignore[no-any-return]


class TimeFirst(nn.Module):
    """A recurrent network that takes the batch for time."""

    def __init__(self, kind: type[nn.Module]) -> None:
        super().__init__()
        self.rnn, self.head = kind(2, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.rnn(x.reshape(len(x), 3, 2))[0][:, -1])  # type: ignore[no-any-return]


@pytest.mark.parametrize("size", [40, 8, 3, 2, 1])
@pytest.mark.parametrize("how", ["mean", "max", "softmax", "batch norm", "before", "neighbour"])
def test_a_network_whose_logits_depend_on_the_batch_is_refused_at_every_batch_size(how: str, size: int) -> None:
    if how == "batch norm" and size == 1:
        return  # refused by torch itself
    model = Company(how).double().eval()
    for call in (fp.EmpiricalRisk, fp.functional_margins):
        kwargs: dict[str, Any] = {"batch_size": size}
        if how == "batch norm" and size in {2, 3}:
            kwargs["batch_size"] = 4
        with pytest.raises(ValueError, match="expected each sample's logits to depend on that sample alone"):
            call(model, DATA, **kwargs)  # type: ignore[operator]


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
def test_a_recurrent_network_that_takes_the_batch_for_time_is_refused(kind: type[nn.Module]) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = TimeFirst(kind).double().eval()
    for size in (40, 7, 1):
        with pytest.raises(ValueError, match="a recurrent layer without batch_first=True"):
            fp.functional_margins(model, DATA, batch_size=size)


class Rows(strange.Nested):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x)[: max(1, len(x) - 1)]


def test_a_row_too_few_is_told() -> None:
    with pytest.raises(ValueError, match="returns 39 rows of logits for a batch of 40 samples; expected one row per"):
        fp.functional_margins(Rows().double().eval(), DATA)


class InPlace(strange.Nested):
    """Writes to its inputs where a value is negative, which the first batch may not have."""

    def __init__(self, *, looks: bool) -> None:
        super().__init__()
        self.looks = looks

    def forward(self, x: Tensor) -> Tensor:
        if not self.looks:
            x = F.relu_(x)
        elif bool((x < 0).any()):
            x.abs_()
        return super().forward(x)


@pytest.mark.parametrize("looks", [False, True])
def test_inputs_are_kept_where_only_later_batches_would_show_that_they_are_written_to(looks: bool) -> None:
    inputs = torch.rand(40, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    inputs[20:] -= 0.5
    data = fp.LabelledData(inputs, torch.arange(40) % 3)
    model, kept = InPlace(looks=looks).double().eval(), inputs.clone()
    found = fp.functional_margins(model, data, batch_size=8).values
    assert torch.equal(data.inputs, kept)
    assert torch.equal(inputs, kept)
    logits = model(kept.clone()).detach()
    others = logits.masked_fill(F.one_hot(data.labels, 3).bool(), -torch.inf).max(1).values
    torch.testing.assert_close(found, logits.gather(1, data.labels[:, None]).squeeze(1) - others)
    assert len(fp.functional_margins(model, fp.LabelledData(kept.abs(), data.labels))) == 40  # pixels that it leaves


class Strided(nn.Module):
    """Reads memory by its strides: another function in channels-last layout."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(1, 4, 3, padding=1), nn.Linear(4 * 64, 10)

    def forward(self, x: Tensor) -> Tensor:
        z = self.conv(x)
        return self.head(z.as_strided((len(x), 256), (256, 1)))  # type: ignore[no-any-return]


class Viewed(Strided):
    def forward(self, x: Tensor) -> Tensor:
        z = self.conv(x)
        return self.head(z.view(z.size(0), -1))  # type: ignore[no-any-return]


@pytest.mark.parametrize("kind", [Strided, Viewed])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("strided", [False, True])
def test_a_layout_is_an_optimisation_that_no_network_is_refused_for(
    kind: type[nn.Module], dtype: torch.dtype, strided: bool
) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = kind().to(dtype).eval()
    data = cases.data_for((1, 8, 8), samples=20)
    inputs = data.inputs.to(dtype)
    if strided:
        inputs = inputs.repeat_interleave(2, 0)[::2].contiguous(memory_format=torch.channels_last)
    labels = model(data.inputs.to(dtype)).argmax(1)
    data = fp.LabelledData(inputs, labels, classes=10)
    assert fp.EmpiricalRisk(model, data)().error == 0
    margins = fp.geometric_margins(model, data, lower=("spectral",) if kind is Viewed else (), upper=("ddn",), steps=5)
    assert bool((margins.upper > 0).all())
    assert fp.EmpiricalRisk(model, data).describe()["network"]["layout"] == "contiguous"


# torch 2.13's oneDNN without AVX-512, which this setting leaves unused; where the processor lacks it anyway, as there.
CRASHES = """
import torch
from torch import nn
import flatprobe as fp
torch.set_num_threads(1)
model = fp.models.resnet((1, 8, 8), depth=10, width=4)
data = fp.LabelledData(torch.rand(64, 1, 8, 8), torch.arange(64) % 10)
class Functional(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.weight = nn.Conv2d(1, 4, 3, padding=1), nn.Parameter(torch.randn(8, 4, 1, 1))
        self.head = nn.Linear(8, 10)
    def forward(self, x):
        return self.head(nn.functional.conv2d(self.conv(x).relu(), self.weight, stride=2).mean((2, 3)))
for network in (model, Functional()):
    run = fp.train(network, data, epochs=12, batch_size=16)
    risk = fp.EmpiricalRisk(run.model, fp.LabelledData(
        data.inputs.contiguous(memory_format=torch.channels_last), data.labels))
    for _ in range(20):
        risk.gradient()
    fp.hessian_trace(risk, draws=4)
    assert risk.describe()["network"]["layout"] == "contiguous"
print("survived")
"""


def test_regression_strided_pointwise_convolutions_do_not_corrupt_the_heap_without_avx512() -> None:
    environment = {**os.environ, "ONEDNN_MAX_CPU_ISA": "AVX2", "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", CRASHES], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.strip() == "survived"


@pytest.mark.parametrize(
    ("ending", "fix"), [(nn.Softmax(1), r"return probabilities\.log\(\)"), (nn.Sigmoid(), "leave out the sigmoid")]
)
def test_probabilities_are_not_taken_for_logits_without_a_word(ending: nn.Module, fix: str) -> None:
    model = nn.Sequential(strange.network("plain"), ending).eval()
    for call in (fp.EmpiricalRisk, fp.functional_margins, fp.jacobian_norms):
        with pytest.warns(UserWarning, match=f"are measured as logits.*{fix}"):
            call(model, DATA)  # type: ignore[operator]
    logs = nn.Sequential(strange.network("plain"), nn.LogSoftmax(1)).eval()  # the fix: the same losses and margins
    expected = fp.functional_margins(strange.network("plain"), DATA).values
    torch.testing.assert_close(fp.functional_margins(logs, DATA).values, expected)


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


def test_a_copy_of_the_network_shares_nothing_and_has_its_weights() -> None:
    network = Network(strange.network("counts"))
    inputs = network.prepare(DATA.inputs)
    copied = network.copied()
    assert torch.equal(copied(inputs), network(inputs))
    copied(inputs, {name: 2 * value for name, value in copied.weights.items()})
    assert torch.equal(copied(inputs), network(inputs))
    single = network.copied(dtype=torch.float32)
    assert single.dtype == torch.float32
    torch.testing.assert_close(single(single.prepare(DATA.inputs)).double(), network(inputs), rtol=1e-5, atol=1e-5)
