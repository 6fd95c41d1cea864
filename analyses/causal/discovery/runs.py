"""The run of a circuit.

In the run of a circuit each receiver gets, through the edges of the circuit, the values that the
senders write in this run. Through every other edge it gets the replacement of the task, by default
the sender's value in the corrupted run. (Conmy et al. 2023, https://arxiv.org/abs/2304.14997;
Goldowsky-Dill et al. 2023, https://arxiv.org/abs/2304.05969)
"""

import torch
from einops import einsum
from jaxtyping import Bool, Float
from torch import Tensor
from xarray import DataArray

from analyses.causal.discovery.graph import edges, graph_of
from analyses.causal.task import Task
from circuits.decomposition import entering, head_results, logits_at
from circuits.hooks import Cache, HookFn, HookPoint
from circuits.interventions import judged, other_examples
from circuits.model import GPT

Writes = Float[Tensor, "sender batch pos d_model"]


def logits(task: Task, kept: DataArray) -> Float[Tensor, "batch *pos d_vocab"]:
    """The logits of the run of a circuit. ValueError if `kept` is not a circuit of the model."""
    whole = edges(task.model)
    if kept.dims != whole.dims or kept.shape != whole.shape or kept.dtype != bool:
        raise ValueError(f"wanted a boolean DataArray {whole.dims} of {whole.shape}, "
                         f"got {kept.dtype} {kept.dims} of {kept.shape}")  # fmt: skip
    cut = torch.from_numpy(whole.values & ~kept.values).to(task.clean.device)
    with torch.no_grad():
        return _run(task, cut)


def value(task: Task, kept: DataArray) -> DataArray:
    """The metric of the run of a circuit, (example)."""
    return task.labelled(judged(task.metric, logits(task, kept)))


def cut_value(task: Task) -> DataArray:
    """The metric of the run in which every edge is cut, (example)."""
    return task.once(_cut_value)


def clean_writes(task: Task) -> Writes:
    """The value that each sender writes in the clean run, without biases."""
    return task.once(_clean_writes)


def replacing_writes(task: Task) -> Writes:
    """The value that replaces each sender's where its edge is cut, see Task."""
    return task.once(_replacing_writes)


def written(model: GPT, cache: Cache) -> Writes:
    """The value that each sender writes to the stream in a run, without biases."""
    with torch.no_grad():
        rows = list(entering(model, cache).values())
        for layer in range(model.cfg.n_layers):
            rows += head_results(model, cache, layer).unbind(2)
            if not model.cfg.attn_only:
                rows.append(_unbiased(model, layer, cache["mlp_out", layer]))
        return torch.stack(rows)


def _cut_value(task: Task) -> DataArray:
    return value(task, edges(task.model) & False)


def _clean_writes(task: Task) -> Writes:
    return written(task.model, task.clean_run.cache)


def _replacing_writes(task: Task) -> Writes:
    task.check_same_shape()
    values = written(task.model, task.corrupted_run.cache)
    if task.replace == "zero":
        return torch.zeros_like(values)
    if task.replace == "mean":
        return values.mean(1, keepdim=True).expand_as(values)
    return values[:, other_examples(values.shape[1])] if task.replace == "resample" else values


def _unbiased(model: GPT, layer: int, mlp_out: Tensor) -> Tensor:
    b_out = model.blocks[layer].mlp.b_out
    return mlp_out if b_out is None else mlp_out - b_out


def _run(task: Task, cut: Bool[Tensor, "sender receiver"]) -> Float[Tensor, "batch *pos d_vocab"]:
    """The run begins in the first layer with a cut edge; below it everything is as in the clean
    run."""
    model, graph = task.model, graph_of(task.model.cfg)
    now = clean_writes(task).clone()  # a row becomes the value of this run when its sender writes
    replacing = replacing_writes(task)

    def replaced(receivers: list[int]) -> HookFn:
        some = cut[:, receivers].any(1)  # these senders have written by then
        weight = cut[some][:, receivers].to(now.dtype)

        def read(activation: Tensor, hook: HookPoint) -> Tensor:
            change = einsum(weight, replacing[some] - now[some], "s r, s b p d -> b p r d")
            return activation + (change if activation.ndim == 4 else change[:, :, 0])

        return read

    def note_heads(z: Tensor, hook: HookPoint) -> None:
        first = graph.senders.index(f"L{hook.layer()}H0")
        W_O = model.blocks[hook.layer()].attn.W_O
        now[first : first + len(W_O)] = einsum(z, W_O, "b p h e, h e d -> h b p d")

    def note_mlp(mlp_out: Tensor, hook: HookPoint) -> None:
        now[graph.senders.index(f"MLP{hook.layer()}")] = _unbiased(model, hook.layer(), mlp_out)

    points = {name: receivers for name, receivers in graph.points.items()
              if cut[:, receivers].any()}  # fmt: skip
    hooks = [(name, replaced(receivers)) for name, receivers in points.items()]
    start = min((model.hook_dict[name].layer() for name in points), default=model.cfg.n_layers - 1)
    for layer in range(start, model.cfg.n_layers):
        hooks.append((f"blocks.{layer}.attn.hook_z", note_heads))
        if not model.cfg.attn_only:
            hooks.append((f"blocks.{layer}.hook_mlp_out", note_mlp))
    with model.for_one_run(hooks):
        resid = task.clean_run.cache["resid_pre", start]
        resid = model(resid, start_at_layer=start, stop_at_layer=model.cfg.n_layers)
    return logits_at(model, resid, task.at)
