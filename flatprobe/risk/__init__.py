"""The empirical risk as a function of the weights, its derivatives, and directions to move along."""

from flatprobe.risk.empirical import EmpiricalRisk, Risk, RiskFunction

__all__ = ["EmpiricalRisk", "Risk", "RiskFunction"]
