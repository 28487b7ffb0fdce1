"""Facts of a network and its data for the reviewer of a comparison, and what makes two networks incomparable."""

import hashlib
from collections.abc import Mapping
from typing import Any

from torch import nn

from flatprobe.data import LabelledData
from flatprobe.data.validation import digest
from flatprobe.network.contexts import standalone
from flatprobe.network.network import Network
from flatprobe.network.trained_on import training_data
from flatprobe.network.weights import norm
from flatprobe.probes.adversarial import AdversarialAccuracy
from flatprobe.probes.flatness import FlatnessRadii
from flatprobe.probes.generalization import TRAIN, Generalization
from flatprobe.probes.geometric import GeometricMargins
from flatprobe.probes.interpolation import Interpolation
from flatprobe.utils.natural import listed
from flatprobe.utils.results import Result

_OF_NETWORK = ("class", "inner_class", "normalised", "parameters", "dtype", "device")

Records = Mapping[str, Mapping[str, Result]]
KEY = "measurement"  # in a record's settings: what the record is of


@standalone
def network_facts(model: nn.Module) -> dict[str, Any]:
    """Class, size, norm, precision and BatchNorm policy of a network, and hashes of its weights and their shapes.

    Raises:
        ValueError: for a network that cannot be probed, such as one in training mode.
    """
    network = Network(model)
    state = {**network.weights, **network.buffers}
    return {
        **{key: value for key, value in network.describe().items() if key in _OF_NETWORK},
        **({"trained_on": marks} if (marks := sorted(training_data(model))) else {}),
        "norm": norm(network.weights),
        "batch_norm": "frozen statistics" if network.batch_normalised else "none",
        "weights_hash": digest({name: value.reshape(-1) for name, value in state.items()}),
        "shapes": _hash([(name, tuple(value.shape)) for name, value in network.weights.items()]),
        "architecture": _hash(model),
    }


def _hash(printed: object) -> str:
    return hashlib.blake2b(repr(printed).encode(), digest_size=8).hexdigest()


def data_facts(data: LabelledData, test: LabelledData | None, seed: int) -> dict[str, Any]:
    """Number, source and fingerprint of the samples, the test samples' likewise, and the seed."""
    described = {"samples": len(data), "fingerprint": data.fingerprint, "data": data.source, "seed": seed}
    return described | ({} if test is None else {"test_samples": len(test), "test_fingerprint": test.fingerprint})


def facts_of(name: str, results: Records) -> dict[str, Any]:
    """The facts that the records of a network hold, for folders without `comparison.json`."""
    found: dict[str, Any] = {}
    for own in results.values():
        if name in own:
            found = {key: value for key, value in measured_on(own[name]).items() if value is not None} | found
    return found | {"checks_not_made": checks_not_made(name, results)}


def measured_on(result: Result) -> dict[str, Any]:
    """Seed, BatchNorm policy, network and data of one result, as its settings hold them."""
    arguments, subject = result.settings.get("arguments", {}), result.settings.get("subject", {})
    network, data = subject.get("network") or {}, subject.get("data") or {}
    return {
        "seed": arguments.get("seed"),
        "batch_norm": arguments.get("batch_norm"),
        "class": network.get("class"),
        **{key: network[key] for key in ("inner_class", "normalised") if key in network},
        "parameters": network.get("parameters"),
        "dtype": network.get("dtype"),
        "samples": data.get("samples"),
        "fingerprint": data.get("fingerprint"),
    }


def checks_not_made(name: str, results: Records) -> list[str]:
    """Checks that a reviewer may ask for and that the results of a network do not hold, a sentence each."""
    own = [found[name] for found in results.values() if name in found]
    missing = []
    generalization = [result for result in own if isinstance(result, Generalization)]
    if not any("test_loss" in result.summary() for result in generalization):
        missing.append("no test samples: the generalization gap was not measured")
    radii = [result for result in own if isinstance(result, FlatnessRadii)]
    if radii and not any(result.settings.get("arguments", {}).get("law") == "adaptive" for result in radii):
        missing.append("no radius under the adaptive law: the isotropic one depends on the scale of the weights")
    if any(result.settings.get("arguments", {}).get("verify") == 0 for result in radii):
        missing.append("no search for earlier exits along the directions (verify=0)")
    margins = [result for result in own if isinstance(result, GeometricMargins)]
    classes = not any(_lacks_classes(result) for result in own)  # without classes there are neither margins nor attacks
    if classes and not any(result.certified and not result.uncertified for result in margins):
        reasons = dict.fromkeys(reason for result in margins for reason in result.uncertified.values())
        missing.append(": ".join(["no certified lower bound of the margins", *list(reasons)[:1]]))
    if classes and not margins and not any(isinstance(result, AdversarialAccuracy) for result in own):
        missing.append("no adversarial attack")
    seeds = {result.settings.get("arguments", {}).get("seed") for result in own} - {None}
    if len(seeds) == 1:
        missing.append("one seed of directions and noise")
    return missing


def said_of_training(results: Records, facts: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """A sentence on the networks of which no record tells whether the samples named "train" trained them."""
    measured = {
        name: result
        for found in results.values()
        for name, result in found.items()
        if isinstance(result, Generalization)
    }
    unknown = [
        name for name, result in measured.items() if not result.settings.get("own_samples") and not _known(name, facts)
    ]
    if not unknown:
        return []
    which = "this network was" if len(measured) == 1 else "the networks were"
    which = which if len(unknown) == len(measured) else f"{listed(unknown)} {'were' if unknown[1:] else 'was'}"
    return [f"Train and test are splits of the data; whether {which} trained on the train split is not known."]


def _known(name: str, facts: Mapping[str, Mapping[str, Any]]) -> bool:
    own = facts.get(name, {})
    return own.get("fingerprint") in own.get("trained_on", ())


def _lacks_classes(result: Result) -> bool:
    data = (result.settings.get("subject") or {}).get("data") or {}
    return "classes" in data and data["classes"] is None


def check_alike(
    results: Records, groups: Mapping[str, str], facts: Mapping[str, Mapping[str, Any]] | None = None
) -> list[str]:
    """Sentences on figures that must not be compared or averaged as they are: other networks, data or arguments."""
    said = _check_networks(results, facts or {})
    # Measurements on the training and on the test samples are on different samples as asked.
    data: dict[str, dict[str, set[str]]] = {}
    for measurement, found in results.items():
        arguments: dict[str, list[str]] = {}
        for name, result in found.items():
            if not isinstance(result, Interpolation) and (own := _samples_of(result)):
                data.setdefault(own[0], {}).setdefault(name, set()).add(own[1])
            for key, value in result.settings.get("arguments", {}).items():
                arguments.setdefault(key, []).append(str(value))
        differing = [key for key, values in arguments.items() if len({*values}) > 1 and key not in _DERIVED]
        if differing:
            said.append(f"{measurement} was measured with different values of {listed(differing)}: do not compare")
    return list(dict.fromkeys([*said, *(words for own in data.values() for words in _check_data(own, groups))]))


def _check_networks(results: Records, facts: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Sentences on networks whose records are of different weights or functions under one name."""
    networks: dict[str, dict[str, list[str]]] = {}
    hashes: dict[str, set[str]] = {}
    for measurement, found in results.items():
        for name, own in (pair for record, result in found.items() for pair in _networks_of(record, result)):
            function = own.get("function")
            known = {**own, "function": None if isinstance(function, str) else function}  # None for one unknown
            networks.setdefault(name, {}).setdefault(_hash(sorted(known.items())), []).append(measurement)
            hashes.setdefault(name, set()).add(str(own.get("weights_hash")))
    said: dict[str, list[str]] = {}
    for name, kinds in networks.items():
        stated = facts.get(name, {}).get("weights_hash")
        if len(kinds) > 1:
            parts = "; ".join(listed(own) for own in kinds.values())
            said.setdefault(f"the records are of networks of different weights or functions ({parts})", []).append(name)
        elif stated is not None and hashes[name] != {stated}:
            only = listed(next(iter(kinds.values())))
            said.setdefault(f"the weights of {only} differ from those that were loaded last", []).append(name)
    return [f"{listed(names)}: {words}. Measure again, or in another folder" for words, names in said.items()]


def _networks_of(name: str, result: Result) -> list[tuple[str, Mapping[str, Any]]]:
    """The networks of a record and what tells each from others; none where the record does not say."""
    asked = result.settings.get(KEY) or {}
    pairs = asked.get("networks", []) if isinstance(result, Interpolation) else [(name, asked.get("network"))]
    return [(own, network) for own, network in pairs if isinstance(network, Mapping)]


def _samples_of(result: Result) -> tuple[str, str] | None:
    """Split of a result, "train" or "test", and the fingerprint of the split's samples, of which it may use some."""
    measured = measured_on(result)["fingerprint"]
    asked = result.settings.get(KEY) or {}
    return measured and (asked.get("on") or TRAIN, asked.get("data") or measured)


def _check_data(data: Mapping[str, set[str]], groups: Mapping[str, str]) -> list[str]:
    """Sentences on networks or groups whose measurements are on different samples."""
    said = []
    several = [name for name, own in data.items() if len(own) > 1]
    if several:
        said.append(
            f"{listed(several)}: the measurements are on different samples. Measure again, or in another folder"
        )
    one = {name: next(iter(own)) for name, own in data.items() if len(own) == 1}
    mixed = [
        group
        for group in dict.fromkeys(groups.values())
        if len({one[name] for name in one if groups.get(name) == group}) > 1
    ]
    if mixed:
        said.append(f"the means of {listed(mixed)} are over networks that were measured on different samples")
    elif len({*one.values()}) > 1:
        by_data: dict[str, list[str]] = {}
        for name, fingerprint in one.items():
            by_data.setdefault(fingerprint, []).append(name)
        parts = "; ".join(listed(names) for names in by_data.values())
        said.append(f"the networks were measured on different samples ({parts}): differences over samples are unpaired")
    return said


# Arguments that a probe derives from the network or its data where none was given.
_DERIVED = ("max_radius", "batch_size", "path")
