"""One training loop: recipe, optimizers, loss, snapshots.

- identity: what makes a run this run: its recipe, config and data.
- Muon: an optimizer that makes each step of a matrix orthogonal.
- next_token_loss: the mean next-token loss of a batch, in little memory.
- optimizers: Muon for the matrices of the blocks, AdamW for the rest.
- orthogonalised: a matrix with all its singular values near 1.
- Progress: how far a run has come.
- Recipe: how a model is trained.
- Record: what is measured at one step.
- Snapshots: where and how often a run is saved, so that it can go on.
- state: all that a run needs to go on: weights, optimizers, generators.
- train: trains a model.
- Watch: the type of a function that sees a run after every step and may end it.
- whole: a model whose weights are shared among processes, gathered in the first one.
- write_log: writes the recipe and the log of a run.
"""

from circuits.training.loop import Watch, identity, train, write_log
from circuits.training.loss import next_token_loss
from circuits.training.optimizers import Muon, optimizers, orthogonalised
from circuits.training.recipe import Recipe
from circuits.training.sharded import whole
from circuits.training.snapshots import Progress, Record, Snapshots, state

__all__ = [
    "Muon", "Progress", "Recipe", "Record", "Snapshots", "Watch", "identity",
    "next_token_loss", "optimizers", "orthogonalised", "state", "train", "whole", "write_log",
]  # fmt: skip
