"""What weight-space probes need of a risk: a start, and its value elsewhere; checked where a probe is given one."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import wraps
from inspect import Parameter, signature
from typing import Any, Protocol, TypeVar, cast, runtime_checkable

from torch import Tensor, nn

from flatprobe.network.contexts import standalone
from flatprobe.network.weights import Weights
from flatprobe.utils.arguments import flag, whole

Probe = TypeVar("Probe", bound=Callable[..., Any])


@dataclass(frozen=True)
class Risk:
    """The mean loss (in the loss's units: nats for the cross-entropy) and the fraction of samples misclassified."""

    loss: float
    error: float


@runtime_checkable
class RiskFunction(Protocol):
    """What weight-space probes need: a start, and the risk elsewhere; `EmpiricalRisk`, or a quadratic bowl."""

    @property
    def center(self) -> Weights:
        """The weights that directions start from."""

    def __call__(self, weights: Mapping[str, Tensor], /) -> Risk:
        """The risk at these weights."""


def risk_at(risk: RiskFunction, weights: Mapping[str, Tensor]) -> Risk:
    """The value of a risk at these weights.

    Raises:
        TypeError: if it returns something without a loss and an error.
    """
    value = risk(weights)
    if not (hasattr(value, "loss") and hasattr(value, "error")):
        msg = (
            f"the risk {type(risk).__name__} returned a {type(value).__name__}; expected a fp.Risk: "
            'return fp.Risk(loss=float(loss), error=float("nan")) where there is no error'
        )
        raise TypeError(msg)
    return value


def takes_risk(probe: Probe) -> Probe:
    """The probe behind a check of its first argument, for whoever gives a network (and data) in its place."""
    own = signature(probe).parameters
    places = sum(parameter.kind is Parameter.POSITIONAL_OR_KEYWORD for parameter in own.values())

    @wraps(probe)
    def checked(risk: object, *others: object, **options: object) -> Any:
        _check(probe.__name__, risk, places)
        _check_options({name: (value, own[name].default) for name, value in options.items() if name in own})
        return standalone(probe)(risk, *others, **options)

    return cast("Probe", checked)


def _check_options(options: Mapping[str, tuple[object, object]]) -> None:
    """What every probe asks of its options: (value, default) by name.

    Raises:
        ValueError: for None where the default is a value, a word for True or False, and a seed that is no integer.
    """
    for name, (value, default) in options.items():
        if value is None and default is not None and default is not Parameter.empty:
            msg = f"{name} is None; expected a value: leave it out for the default, {default!r}"
            raise ValueError(msg)
        if isinstance(default, bool):
            flag(**{name: value})
        elif name == "seed":
            whole(seed=value)


def _check(probe: str, risk: object, places: int) -> None:
    """It is a risk: it can be called, and has a center.

    Raises:
        TypeError: where it is none, with how to make one; for a center that holds no weights by name.
    """
    if not callable(risk) or not hasattr(risk, "center"):
        found = f"the network {type(risk).__name__}" if isinstance(risk, nn.Module) else f"a {type(risk).__name__}"
        rest = ", [first, second], fp.segment()" if places > 1 else ""
        msg = (
            f"the first argument of {probe} is {found}; expected the risk as a function of the weights: "
            f"risk = fp.EmpiricalRisk(model, data), then fp.{probe}(risk{rest})"
        )
        raise TypeError(msg)
    if not isinstance(risk.center, Mapping):
        msg = (
            f"the center of the risk {type(risk).__name__} is a {type(risk.center).__name__}; expected its weights, a "
            "dictionary from names to tensors"
        )
        raise TypeError(msg)
