"""Brings a Saga, the Participants and their contracts together into one model that the rules and the compiler read."""

from amends_saga.analysis.analyse import analyse
from amends_saga.analysis.model import Expression, ExpressionRole, Graph, Method, Model, ParticipantView, StepModel
from amends_saga.analysis.resolve import Pin, pin_of, resolve

__all__ = [
    "Expression",
    "ExpressionRole",
    "Graph",
    "Method",
    "Model",
    "ParticipantView",
    "Pin",
    "StepModel",
    "analyse",
    "pin_of",
    "resolve",
]
