"""Causes: a run is changed at one place, and the effect on a metric is measured.

- Task: an experiment: a model, clean and corrupted tokens, and a metric. All modules take it.
- induction_task: the task of completing a repeat of random tokens.
- metrics: metrics of a run: logit difference, loss, probability, divergence.
- patching: put activations of one run into another, one place at a time.
- path_patching: the same along chosen edges.
- attribution: a first-order estimate of patching, by gradients.
- ablation: the metric without a component.
- idealised: the metric when a head has a pattern that one can write down.
- discovery: find circuits edge by edge, and measure how good they are.
"""

from analyses.causal.task import Task, induction_task

__all__ = [
    "Task", "ablation", "attribution", "discovery", "idealised", "induction_task", "metrics",
    "patching", "path_patching",
]  # fmt: skip
