"""What is done to a run: edits of activations, sweeps over many of them, gradients.

- as_hooks: the edits of one experiment, as hooks.
- Cell: one experiment: its edits.
- Edit: new values for one place of a run.
- edit: an Edit, from a tensor or from a cache.
- edited: runs several experiments as one batch, within a `with`.
- frozen_patterns: edits that keep attention patterns as they were in a run.
- judged: what a metric says of a run: one number for each example, or one for the batch.
- means: an activation replaced by its mean over examples.
- MEMORY: how many bytes a sweep may use, unless one says otherwise.
- Metric: the type of a metric: it gets logits and gives one number for each example.
- other_examples: for each example the number of another one, for resampling.
- resampled: an activation replaced by that of another example.
- run_cells: the activations of several experiments at some hook points.
- Sizes: how much memory a batch of runs takes.
- slopes: the gradient of a metric at some hook points.
- steer: a hook that adds a direction to the stream.
- start: the layer and position at which an experiment begins to differ.
- sweep: the metric of many experiments, in few runs.
- zeros: an activation replaced by zero.
"""

from circuits.interventions.batches import Sizes
from circuits.interventions.edits import (
    Cell,
    Edit,
    as_hooks,
    edit,
    edited,
    frozen_patterns,
    means,
    other_examples,
    resampled,
    start,
    steer,
    zeros,
)
from circuits.interventions.gradients import slopes
from circuits.interventions.sweeps import MEMORY, Metric, judged, run_cells, sweep

__all__ = [
    "MEMORY",
    "Cell",
    "Edit",
    "Metric",
    "Sizes",
    "as_hooks",
    "edit",
    "edited",
    "frozen_patterns",
    "judged",
    "means",
    "other_examples",
    "resampled",
    "run_cells",
    "slopes",
    "start",
    "steer",
    "sweep",
    "zeros",
]  # fmt: skip
