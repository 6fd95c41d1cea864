"""Pattern matching (Olsson et al. 2022, Argument 4): lines of one category that share no word.

https://transformer-circuits.pub/2022/in-context-learning-and-induction-heads/index.html, O15:
"(month) (animal): 0", "(month) (fruit): 1", "(colour) (animal): 2", "(colour) (fruit): 3". A head
that matches patterns attends from ":" to the labels of earlier lines of the same category. A head
that matches words cannot find these lines: no word comes twice.
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
"The words of the tokens of CategoryLines(words=8), in the order of the tokens."


def lines(*, fixed: float = 0.0, seed: int = 0) -> CategoryLines:
    """Rows of eight lines. A share `fixed` of the rows has the labels of the paper."""
    return CategoryLines(lines=8, words=8, fixed=fixed, seed=seed)


def transformer(data: CategoryLines, *, n_layers: int = 3, seed: int = 0) -> GPT:
    """An attention-only GPT at initialisation: four heads in each layer, d_head 16. Three layers
    learned the task from every seed that was tried, two layers from some of the seeds."""
    n_ctx = data.lines * data.PER_LINE
    return GPT(GPTConfig(n_layers=n_layers, d_model=64, n_heads=4, d_head=16, n_ctx=n_ctx,
                         d_vocab=data.d_vocab, positional_embedding_type="shortformer",
                         init_range=0.1, seed=seed))  # fmt: skip


def learn(
    model: GPT, data: CategoryLines, steps: int, *, batch: int = 64, every: int = 50
) -> DataArray:
    """Train a GPT in place on the labels alone. Returns the `accuracy` on rows of shuffled labels,
    (what, step). With data.fixed > 0 the model can learn the kinds of words from some rows before
    it can look back. From shuffled rows alone it learned nothing in so few steps."""
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
    """The share of labels that are the model's first guess, over lines whose category came
    before."""
    rows, known = data.batch(0, batch), same_category(data.categories(0, batch)).any(-1)
    with torch.no_grad():
        guess = model(rows)[:, data.COLON_AT :: data.PER_LINE].argmax(-1)
    return float((guess == rows[:, data.COLON_AT + 1 :: data.PER_LINE])[known].float().mean())


def category_attention(model: Model, data: CategoryLines, *, batch: int = 128) -> DataArray:
    """The attention from ":" to labels of earlier lines of the same category, as a share of the
    attention to all earlier labels, (layer, head), in [0, 1]. Only lines whose category came before
    count.

    attrs["chance"] is the share with equal attention to all earlier labels. The coordinate `looks`
    (layer, head) is the part of a head's attention that earlier labels get.
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
    """For each layer, the attention from the ":" of every line to the label of every line. It is 0
    to the line's own label and to later labels."""
    with torch.no_grad():
        _, cache = model.run_with_cache(rows, names_filter=lambda name: name.endswith("pattern"))
    at, each = data.COLON_AT, data.PER_LINE
    layers = range(model.cfg.n_layers)
    return [cache["pattern", layer][:, :, at::each, at + 1 :: each] for layer in layers]


def same_category(categories: Int[Tensor, "batch line"]) -> Bool[Tensor, "batch line line"]:
    """True where an earlier line (column) has the category of a line (row)."""
    return (categories[:, :, None] == categories[:, None, :]).tril(-1)


def words(row: Int[Tensor, " pos"]) -> list[str]:
    """A row of tokens in words."""
    return [VOCABULARY[token] for token in row.tolist()]
