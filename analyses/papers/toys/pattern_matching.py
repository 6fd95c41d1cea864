"""Pattern matching (Olsson et al. 2022, Argument 4): lines alike in kind that share no word.

https://transformer-circuits.pub/2022/in-context-learning-and-induction-heads/index.html, O15:
"(month) (animal): 0", "(month) (fruit): 1", "(colour) (animal): 2", "(colour) (fruit): 3". A head
that matches patterns attends from ":" to the labels of earlier lines of the same category, which
no head that matches words could find: no word comes twice.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor
from xarray import DataArray

from analyses.labelled import Model, head_coords, to_numpy
from analyses.papers.toys import descent
from circuits.data import CategoryLines
from circuits.model import GPT, GPTConfig
from circuits.training import Recipe, optimizers

KINDS = {
    "month": "January February March April May June July August",
    "colour": "red orange yellow green blue purple black white",
    "animal": "cat dog horse cow sheep goat pig duck",
    "fruit": "apple pear plum cherry grape fig lemon peach",
}
VOCABULARY = [":", "\n", "0", "1", "2", "3", *" ".join(KINDS.values()).split()]
"The word of each token of CategoryLines(words=8)."


def lines(*, fixed: float = 0.0, seed: int = 0) -> CategoryLines:
    """Eight lines of these words; in a share `fixed` of the rows with the labels above."""
    return CategoryLines(lines=8, words=8, fixed=fixed, seed=seed)


def transformer(data: CategoryLines, *, n_layers: int = 3, seed: int = 0) -> GPT:
    """An attention-only GPT with four heads of 16 per layer, as initialised. Three layers learned
    the task from every seed tried, two from some."""
    n_ctx = data.lines * data.PER_LINE
    return GPT(GPTConfig(n_layers=n_layers, d_model=64, n_heads=4, d_head=16, n_ctx=n_ctx,
                         d_vocab=data.d_vocab, positional_embedding_type="shortformer",
                         init_range=0.1, seed=seed))  # fmt: skip


def learn(
    model: GPT, data: CategoryLines, steps: int, *, batch: int = 64, every: int = 50
) -> DataArray:
    """Train a GPT in place on the labels alone: `accuracy` on rows of shuffled labels, (what,
    step). With data.fixed > 0 some rows reward it for kinds of words before it can look back; on
    shuffled rows alone nothing was learned in so few steps."""
    recipe = Recipe(
        steps=max(steps, 1), batch_size=batch, lr=0.005, muon_lr=0.02, warmup=20, final=1.0
    )
    test = descent.unseen(data)
    test.fixed = 0.0

    def loss(rows: Int[Tensor, "batch pos"]) -> Float[Tensor, ""]:
        resid = model(rows, stop_at_layer=model.cfg.n_layers)[:, data.COLON_AT :: data.PER_LINE]
        logits = model.unembed(model.ln_final(resid))
        answers = rows[:, data.COLON_AT + 1 :: data.PER_LINE]
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


def accuracy(model: Model, data: CategoryLines, *, batch: int = 128) -> float:
    """Share of labels that are the model's first guess, of lines whose category came before."""
    rows, known = data.batch(0, batch), same_category(data.categories(0, batch)).any(-1)
    with torch.no_grad():
        guess = model(rows)[:, data.COLON_AT :: data.PER_LINE].argmax(-1)
    return float((guess == rows[:, data.COLON_AT + 1 :: data.PER_LINE])[known].float().mean())


def category_attention(model: Model, data: CategoryLines, *, batch: int = 128) -> DataArray:
    """Attention from ":" to labels of earlier lines of the same category, as a share of attention
    to all earlier labels, (layer, head), in [0, 1]; over lines whose category came before.

    attrs["chance"] is what equal attention to all earlier labels gives; coordinate `looks` (layer,
    head) is how much of a head's attention earlier labels get at all.
    """
    rows, same = data.batch(0, batch), same_category(data.categories(0, batch))
    known = same.any(-1)
    earlier = torch.ones_like(same).tril(-1)
    shares, looks = [], []
    for pattern in label_patterns(model, data, rows):
        right = torch.einsum("bhij,bij->bhi", pattern, same.float())
        total = torch.einsum("bhij,bij->bhi", pattern, earlier.float())
        right, total = (part.transpose(1, 2)[known].mean(0) for part in (right, total))
        shares.append(right / total.clamp(min=1e-12))
        looks.append(total)
    chance = same.sum(-1)[known] / earlier.sum(-1)[known]
    coords = head_coords(model.cfg.n_layers, model.cfg.n_heads)
    coords["looks"] = (("layer", "head"), to_numpy(torch.stack(looks)))
    return DataArray(
        to_numpy(torch.stack(shares)), dims=("layer", "head"), coords=coords, name="category",
        attrs={"long_name": "share on the right category", "bounds": (0.0, 1.0),
               "chance": float(chance.mean())},
    )  # fmt: skip


def label_patterns(
    model: Model, data: CategoryLines, rows: Int[Tensor, "batch pos"]
) -> list[Float[Tensor, "batch head line line"]]:
    """Of each layer, attention from every line's ":" to every line's label; 0 to its own and later
    ones."""
    with torch.no_grad():
        _, cache = model.run_with_cache(rows, names_filter=lambda name: name.endswith("pattern"))
    at, each = data.COLON_AT, data.PER_LINE
    layers = range(model.cfg.n_layers)
    return [cache["pattern", layer][:, :, at::each, at + 1 :: each] for layer in layers]


def same_category(categories: Int[Tensor, "batch line"]) -> Bool[Tensor, "batch line line"]:
    """True where an earlier line (column) is of a line's (row) category."""
    return (categories[:, :, None] == categories[:, None, :]).tril(-1)


def words(row: Int[Tensor, " pos"]) -> list[str]:
    """A row of tokens in words."""
    return [VOCABULARY[token] for token in row.tolist()]
