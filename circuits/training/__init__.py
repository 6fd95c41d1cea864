"""One training loop: recipe, optimizers, loss, snapshots.

- gather_model: a model whose weights are shared among processes, gathered in the first one.
- identity: the recipe, config and data that distinguish a run from others.
- Muon: an optimizer that makes each step of a matrix orthogonal.
- next_token_loss: the mean next-token loss of a batch, in little memory.
- optimizers: Muon for the matrices of the blocks, AdamW for the rest.
- orthogonalise: a matrix with all its singular values near 1.
- Progress: how far a run has come.
- Recipe: how a model is trained.
- Record: the type of the measurements of one step.
- Snapshots: where and how often a run is saved, so that it can go on.
- state: all that a run needs to go on: weights, optimizers, generators.
- train: trains a model.
- Watch: the type of a function that sees a run after every step and may end it.
- write_log: writes the recipe and the log of a run.
"""

from circuits.training.loop import Watch, identity, train, write_log
from circuits.training.loss import next_token_loss
from circuits.training.optimizers import Muon, optimizers, orthogonalise
from circuits.training.recipe import Recipe
from circuits.training.sharded import gather_model
from circuits.training.snapshots import Progress, Record, Snapshots, state

__all__ = [
    "Muon", "Progress", "Recipe", "Record", "Snapshots", "Watch", "gather_model", "identity",
    "next_token_loss", "optimizers", "orthogonalise", "state", "train", "write_log",
]  # fmt: skip
