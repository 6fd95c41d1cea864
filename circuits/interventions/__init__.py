"""Interventions: edits of activations, sweeps over many edited runs, and gradients.

- apply_edits: within a `with`, one run gets the edits of several experiments.
- as_hooks: the edits of one experiment, as hooks.
- Cell: the type of an experiment: a list of edits.
- Edit: new values for one place of a run.
- edit: an Edit, from a tensor or from a cache.
- evaluate_metric: the metric of a run, after a check of its shape.
- frozen_patterns: edits that keep attention patterns as they are in a cache.
- means: the mean of an activation over examples, for an edit.
- MEMORY: the number of bytes that a sweep may use by default.
- Metric: the type of a metric: it gets logits and gives one number for each example.
- other_examples: the number of another example for each example, for resampling.
- resample: for each example the activation of another example, for an edit.
- run_cells: the activations of several experiments at some hook points.
- Sizes: the memory that a batch of runs needs.
- slopes: the gradient of a metric at some hook points.
- start: the first layer and position that an experiment changes.
- steer: a hook that adds a direction to the stream.
- sweep: the metric of many experiments, in few runs.
- zeros: zeros in the shape of an activation, for an edit.
"""

from circuits.interventions.batches import Sizes
from circuits.interventions.edits import (
    Cell,
    Edit,
    apply_edits,
    as_hooks,
    edit,
    frozen_patterns,
    means,
    other_examples,
    resample,
    start,
    steer,
    zeros,
)
from circuits.interventions.gradients import slopes
from circuits.interventions.sweeps import MEMORY, Metric, evaluate_metric, run_cells, sweep

__all__ = [
    "MEMORY", "Cell", "Edit", "Metric", "Sizes", "apply_edits", "as_hooks", "edit",
    "evaluate_metric", "frozen_patterns", "means", "other_examples", "resample", "run_cells",
    "slopes", "start", "steer", "sweep", "zeros",
]  # fmt: skip
