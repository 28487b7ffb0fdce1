"""The empirical risk as a function of the weights, its derivatives, and directions in weight space."""

from flatprobe.risk.empirical import EmpiricalRisk, Risk, RiskFunction

__all__ = ["EmpiricalRisk", "Risk", "RiskFunction"]
