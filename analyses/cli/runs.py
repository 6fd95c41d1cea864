"""Whole training runs for `circuits train`: text or synthetic data in, a model folder out.

The architecture is the framework paper's at small scale: attention-only, layer norm at every read,
untied embeddings, sinusoids on the inputs of W_Q and W_K alone. On text their amplitude and base
are what it takes for previous-token heads to form in layer 0 of so small a model.

A run that was cut off goes on when it is started again in the same way. Under torchrun the first
process alone measures, writes and says anything.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from rich.console import Console
from rich.progress import BarColumn, TimeRemainingColumn
from rich.progress import Progress as Bar
from torch import Tensor

from analyses import prompts
from analyses.cli.corpus import Corpus
from analyses.cli.run_folder import TOKENS, RunFolder, entered
from analyses.heads import attention, induction
from analyses.history import recording
from analyses.labelled import to_numpy
from circuits import distributed
from circuits.data import Batches, RepeatedTokens
from circuits.io import load, save
from circuits.model import GPT, GPTConfig
from circuits.training import Progress, Recipe, Record, Snapshots, Watch, train, whole, write_log

POSITIONS = {
    "positional_embedding_type": "shortformer_sinusoidal",
    "sinusoid_base": 100.0,
    "sinusoid_scale": 3.0,
}


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How a run is carried out; none of it changes the model that comes out.

    All but `examples` and `tokenizer` may be others when a run is gone on with.
    """

    out: Path
    "The model's folder."
    every: int = 250
    "Steps between snapshots."
    until: int | None = None
    "Stop after so many steps; without it the run goes on from there."
    examples: int = 128
    "Rows that the history is measured on; 0: none, `circuits measure` can do it later."
    keep_weights: bool = False
    "Keep the weights of every step of the history, in half precision."
    device: str = "cpu"
    tokenizer: Path | None = None
    "A tokenizer.json to use instead of training one."
    cache: Path | None = None
    "Where tokenised text stays for other runs; else it is in `out` until the run ends."
    like: Path | None = None
    "A folder whose record the first losses are compared with."
    shard: bool = False
    "Share out the weights among the processes, see circuits.training.sharded."


def on_text(shape: dict[str, Any], recipe: Recipe, corpus: Corpus, plan: Plan) -> GPT:
    """The model trained on a corpus, and its folder."""
    with entered(plan.out) as folder:
        if _is_finished(folder, plan):
            return load(plan.out)
        model, windows, unseen = _read(shape, corpus, folder, plan)
        about = {**corpus.about(), "vocab": shape["d_vocab"]}
        return _run(model, windows, recipe, unseen, folder, plan, about)


def _is_finished(folder: RunFolder, plan: Plan) -> bool:
    return bool(distributed.agreed(int(folder.finished), torch.device(plan.device)))


def _read(
    shape: dict[str, Any], corpus: Corpus, folder: RunFolder, plan: Plan
) -> tuple[GPT, Batches, Tensor]:
    console = _console()

    def prepared() -> tuple[GPT, Batches, Tensor]:
        file, cache = plan.out / "tokenizer.json", plan.cache or plan.out / TOKENS
        resumed = folder.begun() or distributed.rank() > 0
        vocabulary = corpus.vocabulary(file, shape["d_vocab"], plan.tokenizer, resumed=resumed)
        if vocabulary.size < shape["d_vocab"] and plan.tokenizer is None:
            console.print(f"this text makes {vocabulary.size} tokens, not {shape['d_vocab']}")
        cfg = GPTConfig(**{**POSITIONS, **shape, "d_vocab": vocabulary.size})
        windows = corpus.windows(vocabulary, cfg.n_ctx, cache, seed=cfg.seed)
        console.print(f"{len(windows.docs):,} documents, {windows.tokens:,} tokens")
        unseen = corpus.evaluation(vocabulary, cfg.n_ctx, max(128, plan.examples))
        return _placed(GPT(cfg, vocabulary), plan), windows, unseen

    with console.status("reading text"):
        return distributed.first_alone(prepared, torch.device(plan.device))


def on_repeated_tokens(shape: dict[str, Any], recipe: Recipe, plan: Plan) -> GPT:
    """The model trained on BOS + R + R, R of 8 to n_ctx/2 - 1 random tokens, and its folder."""
    cfg = GPTConfig(**{"positional_embedding_type": "shortformer_sinusoidal", **shape})
    longest = (cfg.n_ctx - 1) // 2
    data = RepeatedTokens(cfg.d_vocab, shortest=min(8, longest), longest=longest, seed=cfg.seed)
    unseen = RepeatedTokens(cfg.d_vocab, shortest=longest, longest=longest, seed=cfg.seed + 1)
    rows = unseen.batch(0, max(128, plan.examples))
    with entered(plan.out) as folder:
        if _is_finished(folder, plan):
            return load(plan.out)
        model, about = _placed(GPT(cfg), plan), {"data": "repeated tokens"}
        return _run(model, data, recipe, rows, folder, plan, about)


def measured(model: GPT, unseen: Int[Tensor, "batch pos"]) -> Record:
    """Held-out loss (nats), the best head's scores, the loss on either copy of random tokens."""
    held_out = recording.losses(model, unseen).mean().item()
    beside = recording.on_cpu(model)
    loss = induction.loss_by_position(beside, prompts.repeated(beside))
    second = loss.pos >= loss.attrs["repeat"]
    previous = attention.previous_token(beside)
    return {
        "held_out": held_out,
        "prefix_matching": _best(attention.prefix_matching(beside)),
        "previous_token_layer_0": _best(previous[:1]),
        "first_copy": float(loss[:, ~second].mean()),
        "second_copy": float(loss[:, second].mean()),
    }


def _best(scores: Any) -> float:
    return float(scores.max()) if scores.size else 0.0


def _run(
    model: GPT,
    data: Batches,
    recipe: Recipe,
    unseen: Int[Tensor, "batch pos"],
    folder: RunFolder,
    plan: Plan,
    about: dict[str, Any],
) -> GPT:
    wanted = plan.examples or plan.keep_weights
    steps = frozenset(recording.history_steps(recipe.steps) if wanted else ())
    kept = steps if plan.keep_weights else frozenset()
    snapshots = Snapshots(folder=plan.out / "snapshots", every=plan.every, weights_at=kept)
    first, console, records, at = distributed.rank() == 0, _console(), [], []
    if first:
        rows = to_numpy(unseen[:128].long().contiguous()).tobytes()
        measured_on = {"examples": plan.examples, "held-out rows": _hash(rows)}
        folder.begin({**about, **measured_on}, ("vocab", *measured_on))
    columns = ("step {task.completed}/{task.total}", BarColumn(), "loss {task.fields[loss]:.3f}",
               "{task.fields[rate]:,.0f} tokens/s", TimeRemainingColumn())  # fmt: skip
    with Bar(*columns, console=console) as bar:
        watch = _watch(bar, recipe, plan, steps, unseen[: plan.examples], at)
        evaluated = unseen[:128, : model.cfg.n_ctx]
        for record in train(
            model, data, recipe, lambda m: measured(m, evaluated),
            snapshots=snapshots, watch=watch, shard=plan.shard,
        ):  # fmt: skip
            records.append(record)
            if (seen := whole(model)) is not None:
                save(seen, plan.out, overwrite=True)
                write_log(records, recipe, plan.out)
                bar.print(_line(record))
    if first and records and records[-1]["step"] == recipe.steps:
        if wanted:
            recording.collect(plan.out / "history", plan.out, at[0].losses)
        folder.finish()
    return model.eval()


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


def _watch(
    bar: Bar,
    recipe: Recipe,
    plan: Plan,
    steps: frozenset[int],
    rows: Int[Tensor, "batch pos"],
    at: list[Progress],
) -> Watch:
    """Shows how far the run is, records its history, compares it, and ends it at `until`; `at`
    becomes what it watches."""
    task = bar.add_task("train", total=recipe.steps, loss=float("nan"), rate=0.0)
    begun: list[Progress] = []
    record = _recorded_losses(plan.like)

    def watch(model: GPT, progress: Progress) -> bool:
        if not begun:  # not the speed of the piece before this one
            begun.append(Progress(progress.step, progress.tokens, progress.seconds))
            at.append(progress)
            bar.reset(task, completed=progress.step)
        elif progress.step:
            seconds = max(progress.seconds - begun[0].seconds, 1e-9)
            rate = (progress.tokens - begun[0].tokens) / seconds
            bar.update(task, completed=progress.step, loss=progress.losses[-1], rate=rate)
        if progress.step in steps:
            seen = whole(model)
            if seen is not None:
                recording.record(seen, progress, rows, plan.out / "history")
        if len(record) and progress.step == len(record):
            apart = np.abs(np.array(progress.losses[: len(record)]) - record).max()
            bar.print(f"the first {len(record)} losses are within {apart:.1e} nats of the record")
        return plan.until is not None and progress.step >= plan.until

    return watch


def _recorded_losses(folder: Path | None, count: int = 50) -> np.ndarray:
    if folder is None or not (folder / recording.FILE).is_file():
        return np.empty(0)
    return recording.arrays_of(folder / recording.FILE)["step_loss"][:count]


def _placed(model: GPT, plan: Plan) -> GPT:
    return model if plan.shard else model.to(plan.device)  # parts go to where they belong


def _console() -> Console:
    return Console(stderr=True, quiet=distributed.rank() > 0)


def _line(record: Record) -> str:
    rate = record["tokens"] / max(record["seconds"], 1e-9)
    shown = (
        "loss",
        "held_out",
        "prefix_matching",
        "previous_token_layer_0",
        "first_copy",
        "second_copy",
    )
    rest = "  ".join(f"{name} {record[name]:.2f}" for name in shown)
    return f"step {record['step']:.0f}  {record['tokens'] / 1e6:.1f}M tokens, {rate:,.0f}/s  {rest}"
