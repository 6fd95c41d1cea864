"""Circuits found edge by edge: scores of edges, circuits from scores, and measures of circuits.

    task = Task(model, clean, corrupted, metric)  # or induction_task(model)
    scores = discovery.eap_ig(task)
    kept = discovery.top(scores, 10)
    discovery.faithfulness(task, kept)

- exact, eap, eap_ig: the effect of each edge: exact, and estimated by gradients.
- acdc, acdc_scores: circuits by cutting one edge after another.
- top, greedy, significant_edges: circuits from the scores of edges.
- connected_part: the edges of a circuit that lie on a path from the embedding to the logits.
- drop: a circuit without some components.
- logits, value, cut_value: the run of a circuit, and the run with all edges cut.
- faithfulness, faithfulness_by_edges, completeness, minimality: how good a circuit is.
- curve, p_of_renaming: how well scores find a known circuit.
- circuit, edges, names: a circuit from its edges, all edges of a model, the edges of a circuit.
"""

from analyses.causal.discovery.effects import eap, eap_ig, exact
from analyses.causal.discovery.evaluation import (
    completeness,
    curve,
    drop,
    faithfulness,
    faithfulness_by_edges,
    minimality,
    p_of_renaming,
    significant_edges,
)
from analyses.causal.discovery.graph import circuit, edges, names
from analyses.causal.discovery.runs import cut_value, logits, value
from analyses.causal.discovery.search import acdc, acdc_scores, connected_part, greedy, top

__all__ = [
    "acdc", "acdc_scores", "circuit", "completeness", "connected_part", "curve", "cut_value",
    "drop", "eap", "eap_ig", "edges", "exact", "faithfulness", "faithfulness_by_edges", "greedy",
    "logits", "minimality", "names", "p_of_renaming", "significant_edges", "top", "value",
]  # fmt: skip
