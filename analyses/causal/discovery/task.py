"""What a circuit is sought for, and the run of a circuit.

In the run of a circuit each receiver finds in the stream, of the senders whose edges the circuit
has, what they write in this very run, and of all others what they wrote in the corrupted run.
(Conmy et al. 2023, https://arxiv.org/abs/2304.14997; Goldowsky-Dill et al. 2023,
https://arxiv.org/abs/2304.05969)
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Generic, Literal, TypeVar

import torch
from einops import einsum
from jaxtyping import Bool, Float, Int
from torch import Tensor
from xarray import DataArray

from analyses import prompts
from analyses.causal import metrics
from analyses.causal.discovery import graph
from analyses.labelled import to_numpy
from circuits.decomposition import entering, head_results, logits_at
from circuits.hooks import Cache, HookFn, HookPoint
from circuits.interventions import Metric, judged
from circuits.model import GPT, check_predicts, checked_tokens

Writes = Float[Tensor, "sender batch pos d_model"]
Made = TypeVar("Made")
By = Literal["run", "mean", "zero"]
"What an edge that is cut carries: the corrupted run, its mean over examples, nothing."


class _OfWeights(Generic[Made]):
    """A cached property of a task that is made anew when its model's weights have changed."""

    def __init__(self, make: Callable[[Any], Made]) -> None:
        self.make, self.name, self.__doc__ = make, f"_{make.__name__}", make.__doc__

    def __get__(self, task: Any, owner: type | None = None) -> Made:
        if task is None:
            return self  # type: ignore[return-value]
        weights = [
            (weight.data_ptr(), 0 if weight.is_inference() else weight._version)
            for weight in task.model.parameters()
        ]
        kept = vars(task).get(self.name)
        if kept is None or kept[0] != weights:
            kept = vars(task)[self.name] = weights, self.make(task)
        return kept[1]


@dataclass(frozen=True, eq=False)
class Task:
    """Clean and corrupted tokens, and a metric of the logits [batch d_vocab] of the position `at`,
    one for all examples or one each.

    ValueError if the runs do not match, or the metric is not finite in both: one number an example,
    or one for the batch. What is kept of the runs is made anew when weights have changed, but for
    changes through `weight.data`, which torch does not count.
    """

    model: GPT
    clean: Int[Tensor, "batch pos"]
    corrupted: Int[Tensor, "_batch _pos"]
    metric: Metric
    at: int | Int[Tensor, " batch"] = -1
    by: By = "run"

    def __post_init__(self) -> None:
        cfg = self.model.cfg
        if cfg.n_layers == 0:
            raise ValueError("a model without layers has one edge alone, from embed to logits")
        if self.by not in ("run", "mean", "zero"):
            raise ValueError(f"by={self.by!r}; choose run, mean or zero")
        clean, corrupted = (list(checked_tokens(one, cfg).shape)
                            for one in (self.clean, self.corrupted))  # fmt: skip
        if clean != corrupted:
            raise ValueError(f"clean tokens {clean} and corrupted tokens {corrupted} must have one "
                             f"shape, example by example")  # fmt: skip
        for name, cache in zip(("clean", "corrupted"), self.caches, strict=True):
            with torch.no_grad():
                logits = logits_at(self.model, cache["resid_post", -1], self.at)
                judged(self.metric, logits, f"the {name} run")

    @_OfWeights
    def caches(self) -> tuple[Cache, Cache]:
        """The clean and the corrupted run: what was written, and the stream."""
        kept = ("hook_embed", "pos_embed", "hook_z", "mlp_out", "resid_pre", "resid_post")

        def run(tokens: Int[Tensor, "batch pos"]) -> Cache:
            with torch.no_grad():
                return self.model.run_with_cache(
                    tokens, None, names_filter=lambda name: name.endswith(kept)
                )[1]

        return run(self.clean), run(self.corrupted)

    @_OfWeights
    def here(self) -> Writes:
        """What each sender writes in the clean run, without biases."""
        return written(self.model, self.caches[0])

    @_OfWeights
    def there(self) -> Writes:
        """What each sender is replaced by where its edges are cut, see `by`."""
        values = written(self.model, self.caches[1])
        if self.by == "zero":
            return torch.zeros_like(values)
        return values.mean(1, keepdim=True).expand_as(values) if self.by == "mean" else values

    @cached_property
    def edges(self) -> DataArray:
        """All edges of the model, (sender, receiver)."""
        return graph.edges(self.model)

    @_OfWeights
    def clean_value(self) -> DataArray:
        """The metric of the clean run, (example)."""
        return self.value(self.edges)

    @_OfWeights
    def cut_value(self) -> DataArray:
        """The metric of the run in which every edge is cut, (example)."""
        return self.value(self.edges & False)

    def logits(self, kept: DataArray) -> Float[Tensor, "batch d_vocab"]:
        """Logits of the run of a circuit; ValueError if `kept` is not one of this model."""
        whole = self.edges
        if kept.dims != whole.dims or kept.shape != whole.shape or kept.dtype != bool:
            raise ValueError(f"wanted a boolean DataArray {whole.dims} of {whole.shape}, "
                             f"got {kept.dtype} {kept.dims} of {kept.shape}")  # fmt: skip
        cut = torch.from_numpy(whole.values & ~kept.values).to(self.here.device)
        with torch.no_grad():
            return _run(self, cut)

    def value(self, kept: DataArray) -> DataArray:
        """The metric of the run of a circuit, (example)."""
        values = to_numpy(judged(self.metric, self.logits(kept)))
        return DataArray(values, dims="example", name="metric")


def induction_task(
    model: GPT,
    length: int = 12,
    *,
    batch: int = 12,
    by: By = "run",
    bos: int | None = None,
    seed: int = 0,
) -> Task:
    """BOS (see prompts.bos_of) and random tokens said twice, up to their last, against others in
    every place: the logit of the token that comes next less that of the one which the others would
    call for."""
    check_predicts(model.cfg, "the induction task")
    bos, others = prompts.bos_of(model, bos), model.cfg.d_vocab - 1
    clean = prompts.random_tokens(model, length, times=2, batch=batch, bos=bos, seed=seed)
    moves = prompts.random_tokens(model, 2 * length - 1, batch=batch, bos=bos, seed=seed + 1)
    other, places = clean[:, :-1].clone(), (moves[:, 1:] % others).clamp(min=1)  # never the same
    without_bos = other[:, 1:] - (other[:, 1:] > bos).long()
    moved = (without_bos + places) % others
    other[:, 1:] = moved + (moved >= bos).long()
    metric = metrics.logit_difference(clean[:, -1], other[:, length])
    return Task(model, clean[:, :-1], other, metric, by=by)


@torch.no_grad()
def written(model: GPT, cache: Cache) -> Writes:
    """What each sender writes to the stream in a run, without biases."""
    rows = list(entering(model, cache).values())
    for layer in range(model.cfg.n_layers):
        rows += head_results(model, cache, layer).unbind(2)
        if not model.cfg.attn_only:
            rows.append(_unbiased(model, layer, cache["mlp_out", layer]))
    return torch.stack(rows)


def _unbiased(model: GPT, layer: int, mlp_out: Tensor) -> Tensor:
    b_out = model.blocks[layer].mlp.b_out
    return mlp_out if b_out is None else mlp_out - b_out


def _run(task: Task, cut: Bool[Tensor, "sender receiver"]) -> Float[Tensor, "batch d_vocab"]:
    """From the first layer with a cut edge on; below it lies the clean run."""
    model, now = task.model, task.here.clone()  # whose rows are the run's as soon as they come
    who = {name: i for i, name in enumerate(graph.senders(model))}

    def exchanged(receivers: list[int]) -> HookFn:
        some = cut[:, receivers].any(1)  # senders that have written by then
        weight = cut[some][:, receivers].to(now.dtype)

        def read(activation: Tensor, hook: HookPoint) -> Tensor:
            change = einsum(weight, task.there[some] - now[some], "s r, s b p d -> b p r d")
            return activation + (change if activation.ndim == 4 else change[:, :, 0])

        return read

    def note_heads(z: Tensor, hook: HookPoint) -> None:
        first = who[f"L{hook.layer()}H0"]
        W_O = model.blocks[hook.layer()].attn.W_O
        now[first : first + len(W_O)] = einsum(z, W_O, "b p h e, h e d -> h b p d")

    def note_mlp(mlp_out: Tensor, hook: HookPoint) -> None:
        now[who[f"MLP{hook.layer()}"]] = _unbiased(model, hook.layer(), mlp_out)

    points = {name: receivers for name, receivers in graph.points(model).items()
              if cut[:, receivers].any()}  # fmt: skip
    hooks = [(name, exchanged(receivers)) for name, receivers in points.items()]
    start = min((model.hook_dict[name].layer() for name in points), default=model.cfg.n_layers - 1)
    for layer in range(start, model.cfg.n_layers):
        hooks.append((f"blocks.{layer}.attn.hook_z", note_heads))
        if not model.cfg.attn_only:
            hooks.append((f"blocks.{layer}.hook_mlp_out", note_mlp))
    with model.for_one_run(hooks):
        resid = task.caches[0]["resid_pre", start]
        resid = model(resid, start_at_layer=start, stop_at_layer=model.cfg.n_layers)
    return logits_at(model, resid, task.at)
