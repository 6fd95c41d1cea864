"""Circuits found edge by edge: effects of edges, exact and by gradients; ACDC, greedy and top-n
circuits; how faithful, complete and minimal they are, and how well they meet a known one.

    task = discovery.Task(model, clean, corrupted, metric)  # or discovery.induction_task(model)
    scores = discovery.eap_ig(task)
    kept = discovery.top(scores, 10)
    discovery.faithfulness(task, kept)
"""

from analyses.causal.discovery.effects import eap, eap_ig, exact
from analyses.causal.discovery.evaluation import (
    completeness,
    curve,
    faithfulness,
    faithfulness_by_edges,
    minimality,
    renamed,
    reported,
    without,
)
from analyses.causal.discovery.graph import circuit, edges, names, receivers, senders
from analyses.causal.discovery.search import acdc, acdc_scores, connected, greedy, top
from analyses.causal.discovery.task import Task, induction_task

__all__ = [
    "Task",
    "acdc",
    "acdc_scores",
    "circuit",
    "completeness",
    "connected",
    "curve",
    "eap",
    "eap_ig",
    "edges",
    "exact",
    "faithfulness",
    "faithfulness_by_edges",
    "greedy",
    "induction_task",
    "minimality",
    "names",
    "receivers",
    "renamed",
    "reported",
    "senders",
    "top",
    "without",
]
