"""Generalization bounds: arithmetic by hand, what they grow with, vacuity, flags, records, errors."""

import math

import pytest

import flatprobe as fp
from flatprobe import bounds
from tests.helpers import cases
from tests.helpers.properties import assert_model_untouched

ANY = {"samples": 1000, "empirical": 0.0}


def test_closed_form_hoeffding_by_hand() -> None:
    # ln(2 / 0.05) = ln 40 = 3.6888794541; / (2 * 200) = 0.0092221986; root 0.0960322792
    bound = bounds.hoeffding(samples=200, empirical=0.1)
    assert bound.value == pytest.approx(0.0960322792, abs=1e-10)
    assert bound.expected == pytest.approx(0.1960322792, abs=1e-10)
    # O20 eq. 6.1: variables in [-1, 1] have range 2, sqrt(2 ln(2 / delta) / n)
    wide = bounds.hoeffding(samples=200, empirical=0.1, maximum=2.0)
    assert wide.value == pytest.approx(math.sqrt(2 * math.log(40) / 200), rel=1e-12)


def test_closed_form_bits_by_hand_and_as_the_inverse_of_t3_eq_17() -> None:
    # 2 (8 * 3 ln 2 + ln(2 / 0.1)) / 500 = 2 (16.6355323334 + 2.9957322736) / 500 = 0.0785250584; root 0.2802232296
    bound = bounds.bits(parameters=3, bits_per_parameter=8, samples=500, empirical=0.2, delta=0.1)
    assert bound.value == pytest.approx(0.2802232296, abs=1e-9)
    samples = 2 / bound.value**2 * (8 * 3 * math.log(2) + math.log(2 / 0.1))
    assert samples == pytest.approx(500, rel=1e-12)
    assert bound.details["uniform"] == pytest.approx(math.sqrt((24 * math.log(2) + math.log(20)) / 1000), rel=1e-12)


def test_closed_form_robustness_by_hand_and_in_the_three_papers_notations() -> None:
    # (2 * 10 ln 2 + 2 ln 20) / 400 = (13.8629436112 + 5.9914645471) / 400 = 0.0496360204; root 0.2227914280
    bound = bounds.robustness(samples=400, empirical=0.0, epsilon=0.01, partitions=10)
    assert bound.value == pytest.approx(0.2327914280, abs=1e-9)
    assert bound.terms == {"epsilon": 0.01, "partition": pytest.approx(0.2227914280, abs=1e-9)}
    tall = bounds.robustness(samples=400, empirical=0.0, epsilon=0.01, partitions=10, maximum=3.0)
    o20 = 0.01 + 2 * 3 * math.sqrt((10 * math.log(2) + math.log(1 / 0.05)) / (2 * 400))  # eq. 6.3
    assert tall.value == pytest.approx(o20, rel=1e-12)
    s17 = 0.01 + 3 * math.sqrt((2 * 10 * math.log(2) + 2 * math.log(1 / 0.05)) / 400)  # eq. 8, T3 eq. 21
    assert tall.value == pytest.approx(s17, rel=1e-12)
    prior = bounds.robustness(samples=400, empirical=0.0, partitions=10, prior=0.01)  # T3 eq. 22
    assert prior.value == pytest.approx(
        math.sqrt((20 * math.log(2) + 2 * math.log(1 / (0.01 * 0.05))) / 400), rel=1e-12
    )


def test_closed_form_a_margin_gives_s17_eqs_8_12_13() -> None:
    m, gamma, classes, k, constant, delta = 60_000, 1.5, 10, 3, 4.0, 0.01
    given = {
        "samples": m, "empirical": 0.0, "margin": gamma, "classes": classes, "delta": delta,
        "covering": bounds.manifold(constant=constant, dimension=k),
    }  # fmt: skip
    cells = classes * (constant / (gamma / 2)) ** k
    joint, split, leading = (bounds.robustness(**given, form=form) for form in ("joint", "split", "leading"))
    assert joint.details["log_partitions"] == pytest.approx(math.log(cells), rel=1e-12)
    assert joint.value == pytest.approx(math.sqrt((2 * cells * math.log(2) + 2 * math.log(100)) / m), rel=1e-12)
    eq13 = math.sqrt(math.log(2) * classes * 2 ** (k + 1) * constant**k / (gamma**k * m))
    assert split.value == pytest.approx(eq13 + math.sqrt(2 * math.log(1 / delta) / m), rel=1e-12)
    assert leading.value == pytest.approx(math.sqrt(2 * math.log(2) * cells) / math.sqrt(m), rel=1e-12)  # eq. 12
    assert leading.value < joint.value < split.value
    assert (joint.proven, split.proven, leading.proven) == (True, True, False)


def test_closed_form_covering_numbers_of_s17_section_ii_b() -> None:
    rho = 0.25
    mixture = bounds.gaussian_mixture(components=5, rank=3)
    assert mixture.log_number(rho) == pytest.approx(math.log(5 * 9**3), rel=1e-12)
    sparse = bounds.sparse(atoms=6, sparsity=2)
    assert sparse.log_number(rho) == pytest.approx(math.log(15 * 9**2), rel=1e-12)
    manifold = bounds.manifold(constant=2.0, dimension=4)
    assert manifold.log_number(rho) == pytest.approx(math.log(8**4), rel=1e-12)
    assert manifold.log_number(5.0) == 0  # one ball
    # Thousands of dimensions overflow a float; the bound is then infinite, and vacuous.
    wide = bounds.manifold(constant=10.0, dimension=3072)
    bound = bounds.robustness(**ANY, margin=0.1, classes=10, covering=wide)
    assert bound.details["log_partitions"] == pytest.approx(math.log(10) + 3072 * math.log(200), rel=1e-12)
    assert bound.value == math.inf
    assert bound.vacuous


def test_closed_form_margin_by_hand() -> None:
    # B = (2, 3), d = 8, n = 10^6: R = 2 * 3 * 2 sqrt(2 ln 16 / 10^6) = 12 * 0.0023548200 = 0.0282578402
    complexity = bounds.l1_rademacher(norms=[2.0, 3.0], inputs=8, samples=10**6)
    assert complexity == pytest.approx(0.0282578402, abs=1e-9)
    bound = bounds.margin(samples=10**6, below=0.05, margin=1.5, norms=[2.0, 3.0], inputs=8)
    # C = 6: log2(24 / 1.5) = 4, ln 4 = 1.3862943611; 4 R / 1.5 = 0.0753542405
    expected = {
        "complexity": pytest.approx(0.0753542405, abs=1e-9),
        "margins": pytest.approx(math.sqrt(1.3862943611 / 10**6), rel=1e-9),
        "confidence": pytest.approx(math.sqrt(math.log(20) / (2 * 10**6)), rel=1e-12),
    }
    assert bound.terms == expected
    assert bound.expected == pytest.approx(0.05 + sum(bound.terms.values()), rel=1e-12)
    assert bound.empirical == 0.05
    tight = bounds.margin(samples=10**6, below=0.05, margin=1.5, norms=[2.0, 3.0], inputs=8, largest=3.0)
    assert tight.terms["margins"] == pytest.approx(math.sqrt(math.log(3) / 10**6), rel=1e-12)  # log2(12 / 1.5) = 3


def test_closed_form_frobenius_and_rademacher() -> None:
    bound = bounds.frobenius(samples=400, empirical=0.0, norms=[1.0, 2.0, 3.0])
    assert bound.value == pytest.approx(4 * 6 / 20, rel=1e-12)  # S17 eq. 44
    assert (bound.proven, bound.chosen) == (False, ("norms",))
    general = bounds.rademacher(samples=200, empirical=0.1, complexity=0.03)
    assert general.value == pytest.approx(2 * 0.03 + math.sqrt(math.log(20) / 400), rel=1e-12)
    tall = bounds.rademacher(samples=200, empirical=0.1, complexity=0.03, maximum=2.0)
    assert tall.terms["confidence"] == pytest.approx(2 * general.terms["confidence"], rel=1e-12)


def test_closed_form_dyadic_margins_and_a_prior_that_sums_to_one() -> None:
    assert [bounds.dyadic(margin)[0] for margin in (7.0, 0.5, 0.49, 0.25, 0.2, 2.0**-10)] == [
        0.5, 0.5, 0.25, 0.25, 0.125, 2.0**-10,
    ]  # fmt: skip
    assert math.fsum(bounds.dyadic(2.0**-k)[1] for k in range(1, 1000)) == pytest.approx(1, abs=1e-3)
    assert bounds.dyadic(2.0**-3)[1] == pytest.approx(6 / (9 * math.pi**2), rel=1e-12)


MANIFOLD = bounds.manifold(constant=1.0, dimension=2)
FUNCTIONS = {
    "hoeffding": (bounds.hoeffding, {"empirical": 0.0}),
    "bits": (bounds.bits, {"empirical": 0.0, "parameters": 5}),
    "partitions": (bounds.robustness, {"empirical": 0.0, "partitions": 7}),
    "margins": (bounds.robustness, {"empirical": 0.0, "margin": 0.5, "classes": 2, "covering": MANIFOLD}),
    "margin": (bounds.margin, {"below": 0.0, "margin": 0.5, "norms": [1.0, 2.0], "inputs": 9}),
    "rademacher": (bounds.rademacher, {"empirical": 0.0, "complexity": 0.01}),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_property_more_samples_and_more_doubt_tighten_it_and_it_is_the_sum_of_its_terms(name: str) -> None:
    function, given = FUNCTIONS[name]
    values = [function(samples=n, **given).value for n in (100, 1000, 10_000)]
    assert values[0] > values[1] > values[2] > 0
    certain, doubtful = (function(samples=100, delta=delta, **given).value for delta in (0.001, 0.1))
    assert certain > values[0] > doubtful
    bound = function(samples=100, **given)
    assert sum(bound.terms.values()) == pytest.approx(bound.value, rel=1e-12)


def test_property_monotone_in_what_they_measure() -> None:
    def rises(function, argument: str, values: list, **given: object) -> bool:
        found = [function(**given, **{argument: value}).value for value in values]
        return sorted(found) == found and found[0] < found[-1]

    assert rises(bounds.robustness, "partitions", [1, 10, 100], **ANY)
    assert rises(bounds.robustness, "epsilon", [0.0, 0.1, 0.2], partitions=3, **ANY)
    assert rises(bounds.robustness, "margin", [2.0, 0.5, 0.1], classes=2, covering=MANIFOLD, **ANY)
    assert rises(bounds.robustness, "prior", [1, 0.5, 0.01], partitions=3, **ANY)
    assert rises(bounds.bits, "parameters", [1, 10, 100], **ANY)
    assert rises(bounds.margin, "margin", [1.0, 0.5, 0.1], samples=100, below=0.0, norms=[1.0, 1.0], inputs=5)
    assert rises(bounds.margin, "inputs", [1, 10, 100], samples=100, below=0.0, norms=[1.0, 1.0], margin=0.5)
    assert rises(
        bounds.margin, "norms", [[1.0, 1.0], [1.0, 2.0], [1.0] * 4], samples=100, below=0.0, margin=0.5, inputs=5
    )
    assert rises(bounds.frobenius, "norms", [[1.0], [1.0, 1.0], [1.0, 1.0, 1.0]], **ANY)


def test_closed_form_vacuous_from_exactly_the_maximum_on() -> None:
    complexity = 0.25 - math.sqrt(math.log(20) / 2000) / 2
    for empirical, vacuous in ((0.4999, False), (0.5001, True), (1.0, True)):
        bound = bounds.rademacher(samples=1000, empirical=empirical, complexity=complexity)  # value 1/2
        assert bound.value == pytest.approx(0.5, abs=1e-12)
        assert bound.vacuous is vacuous
    assert bounds.hoeffding(samples=1, empirical=0.0, maximum=2.0).vacuous
    even = bounds.rademacher(samples=10**9, empirical=1.0, complexity=0.0, maximum=1.0, delta=1 - 1e-12)
    assert even.vacuous  # empirical + gap >= M, the gap all but 0
    assert not bounds.hoeffding(samples=100, empirical=0.5).vacuous


def test_what_was_chosen_after_seeing_the_data_is_flagged_unless_a_prior_pays() -> None:
    given = {"margin": 0.25, "classes": 2, "covering": MANIFOLD}
    assert bounds.robustness(**ANY, **given).chosen == ("margin",)
    assert bounds.robustness(**ANY, partitions=4).chosen == ("partitions",)
    assert bounds.robustness(**ANY, partitions=4, prior=1).chosen == ()
    assert bounds.robustness(**ANY, **given, prior=0.1).chosen == ()
    assert bounds.margin(samples=10, below=0.0, margin=0.5, norms=[1.0], inputs=2).chosen == ("norms",)
    assert bounds.margin(samples=10, below=0.0, margin=0.5, norms=[1.0], inputs=2, prior=0.5).chosen == ()
    assert bounds.rademacher(**ANY, complexity=0.1).chosen == ("class",)
    assert bounds.hoeffding(**ANY).chosen == bounds.bits(**ANY, parameters=1).chosen == ()
    assert bounds.hoeffding(**ANY, held_out=False).chosen == ("network",)


def test_held_out_and_network_bits_measure_the_network() -> None:
    model, data = cases.residual(), cases.data_for((1, 8, 8))
    error = fp.EmpiricalRisk(model, data)().error
    own = bounds.held_out(model, data, delta=0.01)
    assert (own.empirical, own.value) == (error, bounds.hoeffding(samples=130, empirical=error, delta=0.01).value)
    counted = bounds.network_bits(model, data)
    floats = [*model.parameters(), *(buffer for buffer in model.buffers() if buffer.is_floating_point())]
    total = sum(value.numel() for value in floats)
    assert counted.settings["arguments"]["parameters"] == total
    assert counted.settings["arguments"]["bits_per_parameter"] == 64
    assert counted.value == pytest.approx(math.sqrt(2 * (64 * total * math.log(2) + math.log(40)) / 130), rel=1e-12)
    assert counted.vacuous
    for measure in (bounds.held_out, bounds.network_bits):
        assert_model_untouched(model, lambda measure=measure: measure(model, data))


def test_network_bits_counts_each_type_by_its_own_bits() -> None:
    model = cases.affine().float()
    model.bias.data = model.bias.data.half()
    model.forward = lambda x: x.flatten(1) @ model.weight.T + model.bias.float()
    data = cases.data_for((7,), classes=5)
    arguments = bounds.network_bits(model.eval(), data).settings["arguments"]
    assert arguments["parameters"] * arguments["bits_per_parameter"] == pytest.approx(35 * 32 + 5 * 16, rel=1e-12)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_bound_survives_the_record(name: str, tmp_path) -> None:
    function, given = FUNCTIONS[name]
    bound = function(samples=321, **given)
    loaded = fp.load(fp.save(bound, tmp_path / "bound.parquet"))
    for field in ("value", "empirical", "maximum", "terms", "details", "chosen", "proven"):
        assert getattr(loaded, field) == getattr(bound, field), field
    assert loaded.settings["arguments"] == bound.settings["arguments"]
    assert loaded.settings["probe"].startswith("bounds.")
    assert repr(loaded).startswith("Bound(value=")
    assert list(bound.to_frame().columns) == ["kind", "name", "value"]


def test_an_infinite_bound_survives_the_record(tmp_path) -> None:
    wide = bounds.manifold(constant=10.0, dimension=3072)
    bound = bounds.robustness(**ANY, margin=0.1, classes=10, covering=wide)
    assert fp.load(fp.save(bound, tmp_path / "bound.parquet")).value == math.inf


@pytest.mark.parametrize("name", FUNCTIONS)
def test_bad_samples_delta_and_loss(name: str) -> None:
    function, given = FUNCTIONS[name]
    with pytest.raises(ValueError, match=r"samples must be at least 1.*, got 0"):
        function(samples=0, **given)
    for delta in (0.0, 1.0, -0.1, math.nan):
        with pytest.raises(ValueError, match=r"delta must be a probability of failure in"):
            function(samples=10, delta=delta, **given)
    loss = "below" if "below" in given else "empirical"
    for value in (-0.1, 1.1, math.nan):
        with pytest.raises(ValueError, match=r"empirical must be a mean loss in \[0, 1\]"):
            function(samples=10, **(given | {loss: value}))


@pytest.mark.parametrize(
    ("function", "given", "message"),
    [
        (bounds.hoeffding, {"maximum": 0.0}, r"maximum must be a positive.*, got 0.0"),
        (bounds.bits, {"parameters": 0}, r"parameters must be at least 1.*, got 0"),
        (bounds.bits, {"parameters": 1, "bits_per_parameter": 0}, r"bits_per_parameter must be .*, got 0"),
        (bounds.robustness, {}, "exactly one of partitions and margin must be given, got None and None"),
        (bounds.robustness, {"partitions": 2, "margin": 1.0}, "got 2 and 1.0"),
        (bounds.robustness, {"partitions": 0.5}, "partitions must be a finite number of cells, at least 1, got 0.5"),
        (bounds.robustness, {"partitions": math.inf}, "cells, at least 1, got inf"),
        (bounds.robustness, {"partitions": 2, "classes": 3}, "left out with partitions.* count the cells of a margin"),
        (bounds.robustness, {"partitions": 2, "epsilon": -0.1}, "epsilon must be a finite variation .*, got -0.1"),
        (bounds.robustness, {"partitions": 2, "prior": 0.0}, r"prior must be a probability in .*, got 0\.0"),
        (bounds.robustness, {"partitions": 2, "form": "eq8"}, r"form must be one of 'joint', 'split'.*, got 'eq8'"),
        (bounds.robustness, {"margin": 1.0, "classes": 2}, "at least 2 classes and a covering, .* covering None"),
        (bounds.robustness, {"margin": 1.0, "classes": 1, "covering": MANIFOLD}, "classes 1"),
        (
            bounds.robustness,
            {"margin": 0.0, "classes": 2, "covering": MANIFOLD},
            r"margin must be a positive.*, got 0.0",
        ),
        (
            bounds.robustness,
            {"margin": 1.0, "classes": 2, "covering": MANIFOLD, "empirical": 0.1},
            "must be 0, 0 and 1 with a margin, got 0.1",
        ),
        (bounds.rademacher, {"complexity": -1.0}, "complexity must be a finite Rademacher complexity >= 0, got -1.0"),
        (bounds.frobenius, {"norms": []}, r"norms must be one or more finite norms >= 0, one per layer, got \[\]"),
        (bounds.frobenius, {"norms": [1.0, math.nan]}, "norms must be .*nan"),
    ],
)
def test_bad_arguments(function, given: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        function(**(ANY | given))


def test_bad_margins_and_coverings() -> None:
    given = {"samples": 10, "below": 0.0, "norms": [1.0, 2.0], "inputs": 3}
    with pytest.raises(ValueError, match=r"margin must be at most C = 2\.0, the largest output, got 2\.5"):
        bounds.margin(**given, margin=2.5)
    with pytest.raises(ValueError, match=r"margin must be a positive.*, got 0"):
        bounds.margin(**given, margin=0)
    with pytest.raises(ValueError, match=r"inputs must be at least 1.*, got 0"):
        bounds.l1_rademacher(norms=[1.0], inputs=0, samples=3)
    with pytest.raises(ValueError, match="atoms must be at least the sparsity, 3, got 2"):
        bounds.sparse(atoms=2, sparsity=3)
    with pytest.raises(ValueError, match=r"radius must be a positive finite number, got 0\.0"):
        MANIFOLD.log_number(0.0)
    with pytest.raises(ValueError, match="margin must be a positive finite number, got inf"):
        bounds.dyadic(math.inf)
