"""Translation (Olsson et al. 2022, Argument 4): passages, each followed by its cipher.

https://transformer-circuits.pub/2022/in-context-learning-and-induction-heads/index.html, O14: from
a word of a French sentence the paper's head attends to the English word that comes next. Here the
other language is a permutation of the tokens, the same in all rows.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor
from xarray import DataArray

from analyses.labelled import Model
from analyses.papers.toys import descent
from circuits.data import Ciphered
from circuits.model import GPT, GPTConfig
from circuits.training import Recipe, optimizers

STEPS = 350
"The number of training steps. 300 steps were enough from the two seeds that were tried."


def passages(*, redrawn: bool = False, seed: int = 0) -> Ciphered:
    """Passages of 6 to 16 tokens, out of 25, and their ciphers. If `redrawn`, this is the control:
    the second passage is the cipher of another passage."""
    return Ciphered(26, shortest=6, longest=16, redrawn=redrawn, seed=seed)


def transformer(data: Ciphered, *, seed: int = 0) -> GPT:
    """An attention-only GPT at initialisation: two layers of four heads, d_head 16."""
    return GPT(GPTConfig(n_layers=2, d_model=64, n_heads=4, d_head=16, n_ctx=2 * data.longest,
                         d_vocab=data.d_vocab, positional_embedding_type="shortformer",
                         init_range=0.1, seed=seed))  # fmt: skip


def learn(model: GPT, data: Ciphered, steps: int, *, batch: int = 64, every: int = 20) -> DataArray:
    """Train a GPT in place on the second passages alone. Returns the `accuracy` on rows that it was
    not trained on, (what, step)."""
    recipe = Recipe(
        steps=max(steps, 1), batch_size=batch, lr=0.01, muon_lr=0.05, warmup=20, final=0.2
    )
    test = descent.unseen(data)

    def loss(rows: Int[Tensor, "batch pos"]) -> Float[Tensor, ""]:
        logits, answers = _second_passage(model, rows)
        return F.cross_entropy(logits.flatten(0, 1), answers.flatten())

    return descent.learn(
        data,
        steps,
        loss,
        optimizers(model, recipe),
        lambda: {"accuracy": accuracy(model, test)},
        batch=batch,
        every=every,
        schedule=recipe.schedule,
    )


def accuracy(model: Model, data: Ciphered, *, lengths: int = 4, batch: int = 32) -> float:
    """The share of the tokens of the second passages that are the model's first guess. The first
    token of a second passage does not count. The mean is over `lengths` batches; each batch has one
    random length."""
    shares = []
    for step in range(lengths):
        with torch.no_grad():
            logits, answers = _second_passage(model, data.batch(step, batch))
        shares.append((logits.argmax(-1) == answers).float().mean())
    return float(torch.stack(shares).mean())


def _second_passage(
    model: Model, rows: Int[Tensor, "batch pos"]
) -> tuple[Float[Tensor, "batch n d_vocab"], Int[Tensor, "batch n"]]:
    """The logits of the tokens of the second passage, and the tokens. The first token is left out:
    nothing shows that the passage begins there."""
    start = rows.shape[1] // 2 + 1
    return model(rows[:, :-1])[:, start:], rows[:, start + 1 :]
