"""The empirical risk as a function of the weights."""

from flatprobe.risk.empirical import EmpiricalRisk, Risk, RiskFunction

__all__ = ["EmpiricalRisk", "Risk", "RiskFunction"]
