"""One training loop: recipe, optimizers, loss, snapshots.

- gather_model: in rank 0, the whole of a model whose weights are shared among processes.
- identity: the recipe, config and data that distinguish a run from other runs.
- Muon: an optimizer whose step for each matrix is orthogonal.
- next_token_loss: the mean next-token loss of a batch, in little memory.
- optimizers: Muon for the matrices of the blocks, AdamW for the rest.
- orthogonalise: a matrix with all its singular values near 1.
- Progress: the steps, tokens, losses and records of a run so far.
- Recipe: the settings of a training run.
- Record: the type of the measurements at one step.
- Snapshots: the folder and frequency of snapshots, from which a run can resume.
- state: the tensors that a run needs to resume: weights, optimizers, generators.
- train: trains a model.
- Watch: the type of a function that is called after every step and may end the run.
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
