"""Training history: what a model was at some 150 steps of its training, measured as it trained.

`record` measures one step on a fixed evaluation set, into a file of its own, so that a killed run
keeps what it had; `collect` makes one history.npz of them; `history` reads it. There are only
numbers in it, no text. (Olsson et al. 2022, sections "Definitions" and "Argument 1",
https://transformer-circuits.pub/2022/in-context-learning-and-induction-heads/index.html)
"""

import copy
import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
import xarray
from jaxtyping import Float, Int
from torch import Tensor
from xarray import DataArray, Dataset

from analyses import attention, induction
from circuits.algebra import K_composed_QK
from circuits.components import Head
from circuits.files import replacing
from circuits.model import GPT
from circuits.pretrained import folder_of, models
from circuits.snapshots import Progress, Record

FILE = "history.npz"
VECTOR = 2048
"Losses of single tokens that are kept at each step."
LOGITS = 2**24
"How many are held in memory at a time."
HEADS = {
    "prefix_matching": "attention to what followed the token before",
    "copying": "raise of the attended token, of all in the sample",
    "previous_token": "attention to the token before",
    "qk_trace": "trace of the QK circuit composed with previous-token heads",
}
EARLY, LATE = 50 / 512, 500 / 512
"The two token indices of the in-context score, as shares of the context (paper: 50, 500 of 512)."


def history_steps(total: int, count: int = 150) -> list[int]:
    """About `count` steps from 0 to `total`: each a tenth after the one before, until the gap is
    that of two thirds of them evenly spaced."""
    steps, widest = [0], max(1, round(1.5 * total / count))
    while steps[-1] < total:
        steps.append(min(total, steps[-1] + min(max(1, round(steps[-1] / 10)), widest)))
    return steps


def losses(model: GPT, rows: Int[Tensor, "batch pos"]) -> Float[Tensor, "batch pos-1"]:
    """Loss in nats of rows[:, 1:] given what is before each; a few rows at a time, kept on CPU."""
    device, done = model.W_E.device, []
    at_once = max(1, LOGITS // (rows.shape[1] * model.cfg.d_vocab))
    with torch.no_grad():
        for part in rows.to(device).split(at_once):
            logits = model(part[:, :-1]).float()
            done.append(F.cross_entropy(logits.mT, part[:, 1:].long(), reduction="none").cpu())
    return torch.cat(done)


def qk_trace(model: GPT) -> Float[Tensor, "layer head"]:
    """Trace of W_E W_QK (W_E W_OV)^T, summed over the heads of earlier layers in proportion to
    their attention to the previous token; 0 in layer 0.

    Olsson et al.'s "trace of QK eigenvalues": large where a head looks for its own token in what
    previous-token heads have moved.
    """
    weights = torch.from_numpy(attention.previous_token(model).values)
    traces = torch.zeros(model.cfg.n_layers, model.cfg.n_heads)
    with torch.no_grad():
        for reader in range(model.cfg.n_layers):
            for writer in range(reader):
                composed = K_composed_QK(model, reader, writer).trace()  # reader writer
                traces[reader] += (composed * weights[writer]).sum(-1).float()
    return traces


def record(
    model: GPT, progress: Progress, rows: Int[Tensor, "batch pos"], folder: Path | str
) -> None:
    """Measure the model on evaluation rows (of one more token than its context) into `folder`.

    The heads are measured on random tokens, see `attention` and `induction`, on a copy on the CPU.
    """
    loss = losses(model, rows)
    example, index = _vector(len(rows), loss.shape[1])
    beside = on_cpu(model)
    earlier = [step for step in _recorded(Path(folder)) if step < progress.step]
    since = progress.losses[max(earlier, default=0) :]
    measured = {
        "tokens": np.array(progress.tokens),
        "step_loss": np.array(since, dtype=np.float32),
        "held_out": np.array(loss.mean().item(), dtype=np.float32),
        "loss_by_index": loss.mean(0).numpy().astype(np.float32),
        "token_loss": loss[example, index].numpy().astype(np.float16),
        "prefix_matching": attention.prefix_matching(beside).values.astype(np.float16),
        "copying": induction.copying(beside).values.astype(np.float16),
        "previous_token": attention.previous_token(beside).values.astype(np.float16),
        "qk_trace": qk_trace(beside).numpy(),
    }
    _save(Path(folder) / f"step-{progress.step:08d}.npz", measured)


def on_cpu(model: GPT) -> GPT:
    """The model, or a copy of it on the CPU, where the analyses make their tokens."""
    return model if model.W_E.device.type == "cpu" else copy.deepcopy(model).cpu()


def collect(folder: Path | str, out: Path | str) -> None:
    """Write the recorded steps of `folder` as one file, `out`/history.npz."""
    _save(Path(out) / FILE, _stacked(Path(folder)))


def history(name: str | Path) -> Dataset:
    """What was measured while a model trained: one that ships, or a folder of `circuits train`,
    also one still at it.

    Over (step): train_loss (mean since the step before), held_out, in_context_score; (step, index):
    loss_by_index; (step, layer, head): prefix_matching, copying, previous_token, qk_trace; (step,
    token): token_loss, the loss of fixed tokens of the evaluation set, one or a few per example;
    and step_loss (train_step), the loss of every step. Losses in nats. KeyError if there is none.
    """
    folder = Path(name) if (Path(name) / "history").is_dir() else folder_of(name)
    if (folder / FILE).is_file():
        with np.load(folder / FILE) as file:
            arrays = {key: file[key] for key in file.files}
    elif _recorded(folder / "history"):
        arrays = _stacked(folder / "history")
    else:
        there = [model for model in models() if (folder_of(model) / FILE).is_file()]
        raise KeyError(f"{str(name)!r} has no history; of the models that ship {there} have one")
    return _labelled(arrays, str(name))


def in_context_score(loss_by_index: DataArray) -> DataArray:
    """Loss late in the context less loss early in it, in nats: the more negative, the more the
    model learns from its context. At 500 and 50 of 512 tokens, or the same shares of another."""
    n = loss_by_index.sizes["index"]
    early, late = (max(1, round(share * n)) for share in (EARLY, LATE))
    score = loss_by_index.sel(index=late) - loss_by_index.sel(index=early)
    words = f"loss of token {late} less that of token {early}"
    return (
        score.drop_vars("index", errors="ignore")
        .rename("in_context_score")
        .assign_attrs(_nats(words))
    )


def formed(history: Dataset, threshold: float = 0.3) -> DataArray:
    """The first step at which a head's prefix matching is above `threshold`, (layer, head); NaN
    for one that never gets there."""
    above = history.prefix_matching > threshold
    first = history.step[above.argmax("step")].where(above.any("step"))
    return first.drop_vars("step").rename("formed").assign_attrs(threshold=threshold, units="steps")


def last_record(name: str | Path) -> Record:
    """What the training of a model saw last: the last line of its log.jsonl; empty without one."""
    log = folder_of(name) / "log.jsonl"
    return json.loads(log.read_text().splitlines()[-1]) if log.is_file() else {}


def _vector(examples: int, length: int) -> tuple[Tensor, Tensor]:
    """Which tokens token_loss holds: the same number of places in every example, VECTOR in all."""
    each = min(length, -(-VECTOR // examples))
    rng = np.random.default_rng(0)
    index = np.stack([rng.choice(length, each, replace=False) for _ in range(examples)])
    example = np.repeat(np.arange(examples), each)
    return torch.from_numpy(example[:VECTOR]), torch.from_numpy(index.reshape(-1)[:VECTOR])


def _recorded(folder: Path) -> list[int]:
    return sorted(int(file.stem.removeprefix("step-")) for file in folder.glob("step-*.npz"))


def _stacked(folder: Path) -> dict[str, np.ndarray]:
    steps = _recorded(folder)
    if not steps:
        raise ValueError(f"{folder} holds no recorded steps")
    parts = []
    for step in steps:
        with np.load(folder / f"step-{step:08d}.npz") as file:
            parts.append({key: file[key] for key in file.files})
    arrays = {key: np.stack([p[key] for p in parts]) for key in parts[0] if key != "step_loss"}
    return {
        **arrays,
        "step": np.array(steps),
        "step_loss": np.concatenate([part["step_loss"] for part in parts]),
    }


def _save(file: Path, arrays: dict[str, np.ndarray]) -> None:
    with replacing(file) as part, part.open("wb") as opened:
        np.savez_compressed(opened, allow_pickle=False, **arrays)


def _labelled(arrays: dict[str, np.ndarray], source: str) -> Dataset:
    steps, step_loss = arrays["step"], arrays["step_loss"].astype(np.float32)
    edges = pairwise([0, *steps.tolist()])
    means = [step_loss[a:b].mean() if b > a else np.nan for a, b in edges]
    layers, heads = arrays["prefix_matching"].shape[1:]
    labels = [[str(Head(layer, head)) for head in range(heads)] for layer in range(layers)]
    named = {
        "train_loss": DataArray(np.array(means), dims="step", attrs=_nats("training loss")),
        "step_loss": DataArray(step_loss, dims="train_step", attrs=_nats("training loss")),
        "held_out": DataArray(arrays["held_out"], dims="step", attrs=_nats("held-out loss")),
        "loss_by_index": DataArray(
            arrays["loss_by_index"], dims=("step", "index"), attrs=_nats("held-out loss")
        ),
        "token_loss": DataArray(
            arrays["token_loss"].astype(np.float32), dims=("step", "token"), attrs=_nats("loss")
        ),
    }
    for name, words in HEADS.items():
        values = arrays[name].astype(np.float32)
        bounded = {} if name == "qk_trace" else {"bounds": (0.0, 1.0)}
        attrs = {"long_name": words, **bounded}
        named[name] = DataArray(values, dims=("step", "layer", "head"), attrs=attrs)
    coords = {
        "step": steps,
        "tokens": ("step", arrays["tokens"]),
        "index": np.arange(1, arrays["loss_by_index"].shape[1] + 1),
        "train_step": np.arange(1, len(step_loss) + 1),
        "layer": np.arange(layers),
        "head": np.arange(heads),
        "label": (("layer", "head"), np.array(labels, dtype=str).reshape(layers, heads)),
    }
    data = xarray.Dataset(named, coords, {"source": source})
    return data.assign(in_context_score=in_context_score(data.loss_by_index))


def _nats(words: str) -> dict[str, str]:
    return {"units": "nats", "long_name": words}
