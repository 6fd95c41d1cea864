"""Circuits found edge by edge: effects of edges, exact and by gradients; ACDC, greedy and top-n
circuits; measures of a circuit, and of scores that should find a known one.

    task = Task(model, clean, corrupted, metric)  # or induction_task(model)
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
    p_of_renaming,
    significant_edges,
    without,
)
from analyses.causal.discovery.graph import circuit, edges, names
from analyses.causal.discovery.runs import cut_value, logits, value
from analyses.causal.discovery.search import acdc, acdc_scores, connected, greedy, top

__all__ = [
    "acdc",
    "acdc_scores",
    "circuit",
    "completeness",
    "connected",
    "curve",
    "cut_value",
    "eap",
    "eap_ig",
    "edges",
    "exact",
    "faithfulness",
    "faithfulness_by_edges",
    "greedy",
    "logits",
    "minimality",
    "names",
    "p_of_renaming",
    "significant_edges",
    "top",
    "value",
    "without",
]
