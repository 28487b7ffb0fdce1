"""The work of a comparison: refusals, records that are kept, several processes."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from torch import nn

import flatprobe as fp
from flatprobe.studies.comparison import Comparison
from tests.helpers import cases, compared
from tests.helpers.packages import ROOT

DATA = compared.data()
REFUSED = "ignore:.*measurements were refused"


def counting(calls: list[str]):
    """A probe that notes its calls."""

    def margins(model: nn.Module, data: fp.LabelledData, seed: int = 0) -> fp.Result:
        calls.append(f"{id(model)} {seed}")
        return fp.functional_margins(model, data)

    return margins


@pytest.mark.filterwarnings("ignore:.*not certified", "ignore:.*norms are not known")
def test_nothing_stops_the_rest() -> None:
    models = {"mlp": cases.mlp((1, 4, 4)), "other": nn.Linear(3, 3).eval(), "training": nn.Linear(16, 10).train()}
    with pytest.warns(
        UserWarning, match="3 measurements were refused .* the first being all of other: Linear cannot be run"
    ):
        found = fp.compare(models, DATA, probes=["geometric_margins", "functional_margins", "landscape"])
    assert found.results.keys() == {"geometric_margins", "functional_margins"}
    assert list(found.results["functional_margins"]) == ["mlp"]
    refused = {(refusal.measurement, refusal.network) for refusal in found.refusals}
    assert refused == {("", "training"), ("", "other"), ("landscape", "networks")}
    assert "is in training mode" in next(own.reason for own in found.refusals if own.network == "training")


@pytest.mark.filterwarnings(REFUSED)
@pytest.mark.parametrize(
    "error", [ValueError, TypeError, RuntimeError, NotImplementedError, MemoryError, KeyError, OSError]
)
def test_any_error_of_one_network_is_a_row_with_its_reason(error: type[Exception]) -> None:
    def picky(model: nn.Module, data: fp.LabelledData) -> fp.Result:
        if model is nets["net-1"]:
            msg = "too odd"
            raise error(msg)
        return fp.functional_margins(model, data)

    nets = compared.networks(3)
    found = fp.compare(nets, DATA, probes=[picky, "scores"])
    assert list(found.results["picky"]) == ["net-0", "net-2"]
    assert len(found.results["scores"]) == 3
    (refusal,) = found.refusals
    assert (refusal.measurement, refusal.network) == ("picky", "net-1")
    assert "too odd" in refusal.reason
    assert found.to_frame()["refusal"].notna().sum() == 1


@pytest.mark.filterwarnings(REFUSED)
def test_refusals_are_joined_for_one_reason_alone() -> None:
    def refusing(name: str, reason: str):
        def probe(model: nn.Module, _data: fp.LabelledData) -> fp.Result:
            raise ValueError(reason)

        probe.__name__ = name
        return probe

    def told(*probes: object) -> set[tuple[str, str, str]]:
        found = fp.compare({"a": compared.networks(1)["net-0"]}, DATA, probes=probes, groups={"a": "a"})
        return {(own.measurement, own.network, own.reason[:3]) for own in found.refusals}

    one, other, same = refusing("one", "odd"), refusing("other", "big"), refusing("same", "odd")
    assert told(one, same) == {("", "a", "odd")}
    assert told(one, other) == {("one", "a", "odd"), ("other", "a", "big")}
    # The landscape of a group that has the network's name is no measurement of the network.
    assert told(one, "scores", "landscape") == {("one", "a", "odd"), ("landscape", "a", "a l")}


@pytest.mark.filterwarnings(REFUSED)
def test_a_probe_must_return_a_result() -> None:
    found = fp.compare(compared.networks(2), DATA, probes=[lambda _model, _data: 1.0, "scores"])
    assert "must return a flatprobe Result, got a float" in found.refusals[0].reason


def test_margins_that_do_not_belong_to_the_accuracy_leave_it_as_it_is() -> None:
    accuracy = fp.Measurement("adversarial_accuracy", arguments={"budgets": [0.1], "steps": 2})
    margins = {
        "norm": fp.Measurement("geometric_margins", arguments={"norm": "linf", "upper": "ifgsm", "lower": []}),
        "samples": fp.Measurement("geometric_margins", arguments={"upper": "deepfool", "lower": []}, samples=5),
    }
    nets = compared.networks(2)
    alone = fp.compare(nets, DATA, probes=[accuracy]).results["adversarial_accuracy"]
    for other in margins.values():
        found = fp.compare(nets, DATA, probes=[other, accuracy])
        assert not found.refusals
        for name, result in found.results["adversarial_accuracy"].items():
            assert torch.equal(result.correct, alone[name].correct)
            assert "capped by" not in result.settings["subject"]


def test_what_is_measured_is_not_measured_again(tmp_path: Path) -> None:
    calls: list[str] = []
    nets, probe = compared.networks(3), counting(calls)

    def made(**options: object) -> int:
        before = len(calls)
        fp.compare(options.pop("models", nets), options.pop("data", DATA), probes=probe, out=tmp_path, **options)
        return len(calls) - before

    assert made() == 3
    assert made() == 0
    assert made(models=compared.networks(4)) == 1  # equal weights count, whatever the objects
    assert made(seed=1) == 3
    assert made(seed=1) == 0
    assert made(seed=1, again=True) == 3
    assert made(seed=1, data=DATA.head(20)) == 3
    changed = compared.networks(3)
    with torch.no_grad():
        next(changed["net-1"].parameters()).add_(1)
    assert made(seed=1, data=DATA.head(20), models=changed) == 1
    (tmp_path / "margins" / "net-0.parquet").write_bytes((tmp_path / "margins" / "net-0.parquet").read_bytes()[:-40])
    assert made(seed=1, data=DATA.head(20), models=changed) == 1  # a damaged record is replaced


@pytest.mark.filterwarnings(REFUSED)
def test_a_refusal_leaves_no_record_of_other_data(tmp_path: Path) -> None:
    def fails(model: nn.Module, data: fp.LabelledData) -> fp.Result:
        if len(data) < 30:
            msg = "too few"
            raise ValueError(msg)
        return fp.functional_margins(model, data)

    nets = compared.networks(2)
    fp.compare(nets, DATA, probes=[fails, "scores"], out=tmp_path)
    found = fp.compare(nets, DATA.head(20), probes=[fails, "scores"], out=tmp_path)
    assert not list((tmp_path / "fails").glob("*.parquet"))
    loaded = Comparison.load(tmp_path)
    assert loaded.refusals == found.refusals
    assert loaded.warnings == ()


def test_ctrl_c_keeps_what_is_done(tmp_path: Path) -> None:
    nets, calls = compared.networks(3), []

    def interrupted(model: nn.Module, data: fp.LabelledData) -> fp.Result:
        if model is nets["net-2"] and not calls:
            calls.append("")
            raise KeyboardInterrupt
        return fp.functional_margins(model, data)

    with pytest.raises(KeyboardInterrupt) as caught:
        fp.compare(nets, DATA, probes=interrupted, out=tmp_path)
    assert caught.value.__notes__ == [f"2 records were measured before, and are kept in {tmp_path}"]
    assert list(Comparison.load(tmp_path).results["interrupted"]) == ["net-0", "net-1"]


def test_a_killed_comparison_goes_on_where_it_stood(tmp_path: Path) -> None:
    script = Path(compared.__file__)
    command = [sys.executable, str(script), "records"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT.parent), "OMP_NUM_THREADS": "1"}
    started = subprocess.Popen(command, cwd=tmp_path, env=environment)
    for _ in range(1200):
        if len(list(tmp_path.glob("records/slow/*.parquet"))) >= 2:
            break
        time.sleep(0.1)
    started.send_signal(signal.SIGKILL)
    started.wait()
    done = len(list(tmp_path.glob("records/slow/*.parquet")))
    assert 2 <= done < 6
    before = len(list(tmp_path.glob("called-*")))
    subprocess.run(command, cwd=tmp_path, env=environment, check=True)
    assert len(list(tmp_path.glob("called-*"))) - before == 6 - done
    results = Comparison.load(tmp_path / "records").results["slow"]
    assert list(results) == [f"net-{k}" for k in range(6)]
    assert not list(tmp_path.glob("records/slow/.*"))


@pytest.mark.filterwarnings(REFUSED)
def test_workers_give_the_numbers_of_one_process_and_survive_a_death() -> None:
    probes = ["generalization", "flatness_radius", "gaussian_robustness", "landscape"]
    models = compared.networks(2)
    alone = fp.compare(models, DATA, probes=probes, threads=1)
    more = models | {"fatal": compared.Fatal().eval()}
    together = fp.compare(more, DATA, probes=probes, workers=2, groups={name: name[:3] for name in more})
    for measurement, results in alone.results.items():
        for name, result in results.items():
            other = together.results[measurement]["net" if measurement == "landscape" else name]
            assert result.to_frame().equals(other.to_frame()), (measurement, name)
    (fatal, lone) = together.refusals
    assert (fatal.network, lone.network) == ("fatal", "fat")
    assert "its process died" in fatal.reason


def test_work_that_cannot_be_sent_is_told() -> None:
    with pytest.raises(ValueError, match="workers must be 1 for networks or data that cannot be pickled, got 2"):
        fp.compare(compared.networks(2), DATA, probes=lambda model, data: fp.scores(model, data), workers=2)


def test_measurements_take_arguments_samples_and_the_test_set() -> None:
    nets, test = compared.networks(2), cases.data_for((1, 4, 4), samples=25, seed=4)
    chosen = [
        fp.Measurement("flatness_radius", arguments={"law": "adaptive", "directions": 3}, name="short"),
        fp.Measurement("scores", on="test"),
        fp.Measurement("functional_margins", samples=7),
        fp.Measurement("random_slice"),
    ]
    found = fp.compare(nets, DATA, test=test, probes=chosen, seed=5).results
    radii = fp.flatness_radius(fp.EmpiricalRisk(nets["net-0"], DATA), law="adaptive", directions=3, seed=5)
    assert torch.equal(found["short"]["net-0"].radii, radii.radii)
    assert torch.equal(found["scores"]["net-0"].values, fp.scores(nets["net-0"], test).values)
    assert len(found["functional_margins"]["net-0"]) == 7
    assert found["random_slice"]["net-0"].loss.ndim == 1  # a comparison's default
    twice = [fp.Measurement("scores"), fp.Measurement("scores", arguments={"outputs": "logits"})]
    assert fp.compare(nets, DATA, probes=twice).results.keys() == {"scores", "scores (outputs=logits)"}


def test_bad_measurements() -> None:
    nets = compared.networks(1)
    with pytest.raises(ValueError, match="distinct names, got scores, scores"):
        fp.compare(nets, DATA, probes=["scores", "scores"])
    with pytest.raises(ValueError, match="must have no stage and no experiments"):
        fp.compare(nets, DATA, probes=fp.Measurement("scores", stage="initial"))
    with pytest.raises(ValueError, match="on must be one of 'train', 'test', got 'valid'"):
        fp.compare(nets, DATA, probes=fp.Measurement("scores", on="valid"))
    with pytest.raises(TypeError, match=r"probes must be names, fp\.Measurement.* got a int"):
        fp.compare(nets, DATA, probes=[3])
    with pytest.raises(ValueError, match="must hold at least one measurement"):
        fp.compare(nets, DATA, probes=[])
