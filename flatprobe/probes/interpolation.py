"""Interpolation landscapes: the risk on the line or the simplex between trained networks."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch
from jaxtyping import Bool, Float64
from torch import Tensor

from flatprobe.data import LabelledData, check_data
from flatprobe.probes.coefficients import Coefficients
from flatprobe.probes.surfaces import error_of, has_error
from flatprobe.risk.empirical import EmpiricalRisk, RiskFunction, describe
from flatprobe.risk.endpoints import POLICIES, Endpoint, weights_of_endpoints
from flatprobe.risk.function import takes_risk
from flatprobe.risk.lockstep import risks_along
from flatprobe.risk.recalibration import Recalibration
from flatprobe.utils.arguments import Checked, is_number, one_of
from flatprobe.utils.results import Result, settings

if TYPE_CHECKING:
    import pandas


@dataclass(frozen=True, kw_only=True, repr=False)
class Interpolation(Result):
    """The risk at affine combinations of endpoints. The table has one row per point.

    Attributes:
        coefficients: (points, endpoints) lambda.
        loss: (points,) training loss at w_lambda; NaN or infinite where the loss of the network is.
        error: (points,) fraction misclassified; NaN where the risk has no error.
    """

    coefficients: Coefficients
    loss: Float64[Tensor, " points"]
    error: Float64[Tensor, " points"]

    @property
    def accuracy(self) -> Float64[Tensor, " points"]:
        """1 - error, the surface of T3, Figs 11 and 12."""
        return 1 - self.error

    @property
    def barrier(self) -> float:
        """max_t I(w_t) - ((1 - t) I(w_0) + t I(w_1)) along a line: at least 0, since t includes the endpoints.

        Raises:
            ValueError: unless there are two endpoints, both among the points.
        """
        if self.coefficients.shape[1] != 2:
            msg = (
                f"the barrier must be of two endpoints, got {self.coefficients.shape[1]}. Interpolate two over "
                "fp.segment()"
            )
            raise ValueError(msg)
        ends = [self._corner(0), self._corner(1)]
        between = (self.coefficients >= 0).all(1)
        return float((self.loss - self.coefficients @ self.loss[ends])[between].max())

    @property
    def distance(self) -> Float64[Tensor, " points"]:
        """1 - max_k lambda_k: 0 at a corner, 1 - 1/k at the centre of k endpoints, negative beyond a corner."""
        return 1 - self.coefficients.amax(1)

    @property
    def not_finite(self) -> int:
        """The number of points whose loss is NaN or infinite."""
        return int((~self.loss.isfinite()).sum())

    def flat_share(
        self, level: Checked[float] = 0.9, *, quantity: Checked[Literal["accuracy", "loss"]] = "accuracy"
    ) -> float:
        """Share of the simplex at a level: #{lambda : accuracy(w_lambda) >= level} / #{lambda}, lambda >= 0.

        For the loss: loss(w_lambda) <= level. The share is of the points of the simplex, each with equal weight, and
        points beyond it do not count. A point whose loss is not finite has no accuracy: it counts as below the level,
        and `not_finite` counts such points.

        Args:
            level: least accuracy, or largest loss; 0.9 is our choice, since T3 shows the surfaces without a number.
            quantity: `"accuracy"` or `"loss"`.

        Returns:
            A number in [0, 1].

        Raises:
            ValueError: for an unknown quantity, a level that is no finite number, or if no point is in the simplex.

        Source: ours, for the "flat regions" of Poggio et al. (2017), Figs 11 and 12 [T3].
        """
        one_of("quantity", quantity, ("accuracy", "loss"))
        if quantity == "accuracy" and not has_error(self):
            msg = 'quantity must be "loss" for a risk without an error, got "accuracy". Give the largest loss as level'
            raise ValueError(msg)
        if not (is_number(level) and math.isfinite(level)):
            msg = f"level must be a finite number, got {level!r}. Give the least accuracy, or the largest loss"
            raise ValueError(msg)
        inside = self._inside()
        # An accuracy is k/n through 1 - error, so that it can lie a rounding below its own level.
        met = self.accuracy >= level - 1e-12 if quantity == "accuracy" else self.loss <= level
        return float((met & self.loss.isfinite())[inside].double().mean())

    def profile(self) -> "pandas.DataFrame":
        """Mean loss and accuracy over the points of the simplex at each distance d = 1 - max_k lambda_k.

        Returns:
            One row per distance, ascending: `distance`, `points`, `loss`, `accuracy` (if the risk has an error),
            `not_finite`. A point whose loss
            is not finite makes the means of its distance NaN or infinite; `not_finite` counts such points.

        Raises:
            ValueError: if no point is in the simplex.

        Source: ours, for the "flat regions" around the three minima of Poggio et al. (2017), Figs 11 and 12 [T3].
        """
        import pandas as pd

        inside, finite = self._inside(), self.loss.isfinite()
        # Points of one distance differ by rounding: 1 - 0.7 against 1 - (0.3 + 0.4).
        distances, places = torch.unique(self.distance[inside].round(decimals=9), return_inverse=True)
        points = places.bincount()

        def total(values: Tensor) -> Tensor:
            return torch.zeros_like(distances).index_add(0, places, values[inside].double())

        table = {
            "distance": distances,
            "points": points,
            "loss": total(self.loss) / points,
            "accuracy": total(self.accuracy.where(finite, torch.nan)) / points,
            "not_finite": total(~finite).long(),
        }
        if not has_error(self):
            del table["accuracy"]
        return pd.DataFrame({name: values.numpy() for name, values in table.items()})

    def _inside(self) -> Bool[Tensor, " points"]:
        inside = (self.coefficients >= 0).all(1)
        if not inside.any():
            msg = (
                "the coefficients must include points with all lambda >= 0, got none. Use fp.simplex() or fp.segment()"
            )
            raise ValueError(msg)
        return inside

    def _corner(self, endpoint: int) -> int:
        corner = (self.coefficients[:, endpoint] == 1).nonzero().flatten()
        if len(corner) == 0:
            msg = f"the coefficients must include endpoint {endpoint} for the barrier, got none of it. Use fp.segment()"
            raise ValueError(msg)
        return int(corner[0])

    def summary(self) -> dict[str, float]:
        """Largest and mean loss, mean accuracy if there is an error, number of points; the barrier where it is defined.

        The number of points without a finite loss is added where there are any.
        """
        figures = {
            "max_loss": float(self.loss.max()),
            "mean_loss": float(self.loss.mean()),
            **({"mean_accuracy": float(self.accuracy.mean())} if has_error(self) else {}),
            "points": len(self.loss),
        }
        line = self.coefficients.shape[1] == 2 and bool((self.coefficients == 1).any(0).all())
        figures |= {"not_finite": self.not_finite} if self.not_finite else {}
        return figures | ({"barrier": self.barrier} if line else {})

    def to_frame(self) -> "pandas.DataFrame":
        """One row per point: lambda_1, lambda_2, ..., loss, and the error if there is one."""
        import pandas as pd

        names = [f"lambda_{k + 1}" for k in range(self.coefficients.shape[1])]
        frame = pd.DataFrame(self.coefficients.numpy(), columns=names)
        return frame.assign(loss=self.loss.numpy(), **({"error": self.error.numpy()} if has_error(self) else {}))

    @classmethod
    def from_frame(cls, frame: "pandas.DataFrame", settings: dict[str, Any]) -> "Interpolation":
        """The inverse of `to_frame`."""
        coefficients = frame.filter(like="lambda_").to_numpy(copy=True)
        return cls(
            coefficients=torch.from_numpy(coefficients),
            loss=torch.from_numpy(frame["loss"].to_numpy(copy=True)),
            error=error_of(frame),
            settings=settings,
        )


@takes_risk
def interpolate(
    risk: RiskFunction,
    endpoints: Checked[Sequence[Endpoint]],
    coefficients: Checked[Tensor],
    *,
    batch_norm: Checked[Literal["interpolate", "recalibrate"] | None] = None,
    buffers: Checked[Literal["interpolate", "keep"] | None] = None,
    calibration: Checked[LabelledData | None] = None,
) -> Interpolation:
    """I(w_lambda), w_lambda = sum_k lambda_k w_k, at each of the coefficients.

    Corners reproduce the values of the endpoints exactly.

    Cost: 1 evaluation of the risk per point. Where the first layer is an `nn.Linear` in plain `nn.Sequential`s, its
    outputs are computed once per endpoint and combined (`EmpiricalRisk.along`).

    Args:
        risk: an `EmpiricalRisk` over the training data, whose model gives the architecture, or any callable with a
            `center`.
        endpoints: two or more networks of the risk's architecture: modules in eval mode, or state_dicts; never changed.
        coefficients: (points, endpoints), such as `simplex(3)` or `segment()`.
        batch_norm: treatment of BatchNorm's running statistics. `"interpolate"` combines them like the weights.
            `"recalibrate"` estimates them anew at each point, so corners agree with the endpoints in the weights only.
            A network with BatchNorm needs one of the two; there is no default, since the results differ. Running
            statistics of other normalization layers can be interpolated.
        buffers: treatment of other buffers that differ between the endpoints and change the logits (masks, vectors of a
            spectral normalization). `"interpolate"` combines them like the weights. `"keep"` takes those of the risk's
            model everywhere, so corners no longer reproduce the endpoints. None refuses such buffers.
        calibration: data for `"recalibrate"`; None takes the data of the risk.

    Returns:
        `Interpolation`.

    Raises:
        ValueError: for a network with BatchNorm without `batch_norm`, or `"recalibrate"` without BatchNorm.
        ValueError: if the names or shapes of an endpoint differ; the message names them.
        ValueError: if an endpoint is in training mode, is not finite, or computes another function on a few samples.
        ValueError: if other buffers differ and change the logits, and `buffers` is None.
        ValueError: if the coefficients do not fit the endpoints, or do not sum to 1.
        TypeError: for an endpoint that is neither a module nor a state_dict, or coefficients that are not a tensor.

    Source: Poggio et al. (2017), eq. 15 and Figs 11 and 12 [T3].
    """
    one_of("batch_norm", batch_norm, (None, "interpolate", "recalibrate"))
    one_of("buffers", buffers, POLICIES)
    normalised = isinstance(risk, EmpiricalRisk) and risk.network.batch_normalised
    if calibration is not None and batch_norm != "recalibrate":
        msg = (
            f'batch_norm must be "recalibrate" where calibration data are given, got {batch_norm!r}. Set it, or leave '
            "out calibration"
        )
        raise ValueError(msg)
    if calibration is not None:
        check_data(calibration)
    if normalised and batch_norm is None:
        msg = (
            'batch_norm must be "interpolate" or "recalibrate" for a network with BatchNorm, got None. Its running '
            "statistics belong to one set of weights: combine them like the weights, or estimate them at each point"
        )
        raise ValueError(msg)
    weights = weights_of_endpoints(endpoints, risk, batch_norm, buffers)
    _check_coefficients(coefficients, len(weights))
    measured = Recalibration(risk, calibration) if batch_norm == "recalibrate" else risk
    risks = risks_along(measured, weights, coefficients.tolist())
    return Interpolation(
        coefficients=coefficients.double(),
        loss=torch.tensor([value.loss for value in risks], dtype=torch.float64, device="cpu"),
        error=torch.tensor([value.error for value in risks], dtype=torch.float64, device="cpu"),
        settings=settings(
            "interpolate",
            describe(risk),
            endpoints=len(weights),
            batch_norm=batch_norm,
            **({} if buffers is None else {"buffers": buffers}),
        ),
    )


def _check_coefficients(coefficients: object, endpoints: int) -> None:
    if not isinstance(coefficients, Tensor):
        msg = (
            f"coefficients must be a tensor (points, {endpoints}), got a {type(coefficients).__name__}. Take "
            "fp.simplex(3) for three endpoints, or fp.segment() for two"
        )
        raise TypeError(msg)
    if coefficients.ndim != 2 or coefficients.shape[1] != endpoints or len(coefficients) == 0:
        msg = (
            f"coefficients must have shape (points, {endpoints}) for {endpoints} endpoints, got "
            f"{tuple(coefficients.shape)}. Take fp.simplex(3) for three endpoints, or fp.segment() for two"
        )
        raise ValueError(msg)
    sums = coefficients.double().sum(1)
    if not torch.allclose(sums, torch.ones_like(sums), atol=1e-6):
        row = int((sums - 1).abs().argmax())
        msg = f"the coefficients of point {row} must sum to 1, got {float(sums[row]):.6g}. Divide each row by its sum"
        raise ValueError(msg)
