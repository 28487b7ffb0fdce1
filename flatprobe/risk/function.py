"""The risk of weight-space probes: a function of the weights with a center."""

import math
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
    """Mean loss (cross-entropy: in nats) and fraction of misclassified samples, NaN where the task has no error."""

    loss: float
    error: float = math.nan

    def figures(self) -> dict[str, float]:
        """Loss and error by name; without an error that is absent."""
        absent = math.isnan(self.error) and math.isfinite(self.loss)
        return {"loss": self.loss} if absent else {"loss": self.loss, "error": self.error}

    def __repr__(self) -> str:
        """The figures."""
        return f"Risk({', '.join(f'{name}={value!r}' for name, value in self.figures().items())})"


@runtime_checkable
class RiskFunction(Protocol):
    """Function of the weights with a center, such as an `EmpiricalRisk`."""

    @property
    def center(self) -> Weights:
        """The start of directions, a point in weight space."""

    def __call__(self, weights: Mapping[str, Tensor], /) -> Risk:
        """The risk at the given weights."""


def risk_at(risk: RiskFunction, weights: Mapping[str, Tensor]) -> Risk:
    """Value of a risk at the given weights.

    Raises:
        TypeError: if the value has no loss or no error.
    """
    value = risk(weights)
    if not (hasattr(value, "loss") and hasattr(value, "error")):
        msg = (
            f"the risk {type(risk).__name__} returned a {type(value).__name__}; expected a fp.Risk: "
            "return fp.Risk(float(loss)) where there is no error"
        )
        raise TypeError(msg)
    return value


def takes_risk(probe: Probe) -> Probe:
    """Decorator that checks that the first argument of a probe is a risk."""
    own = signature(probe).parameters
    places = sum(parameter.kind is Parameter.POSITIONAL_OR_KEYWORD for parameter in own.values())

    @wraps(probe)
    def checked(risk: object, *others: object, **options: object) -> Any:
        _check(probe.__name__, risk, places)
        _check_options({name: (value, own[name].default) for name, value in options.items() if name in own})
        return standalone(probe)(risk, *others, **options)

    return cast("Probe", checked)


def _check_options(options: Mapping[str, tuple[object, object]]) -> None:
    """Check of the options that all probes share: (value, default) by name.

    Raises:
        ValueError: for None if the default is a value.
        ValueError: for a word in place of True or False, or a seed that is not an integer.
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
    """Check that the first argument of a probe is a risk: callable, with a center.

    Raises:
        TypeError: for anything else, and for a center that is not a dictionary of weights.
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
