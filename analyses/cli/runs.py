"""Training runs of `circuits train`: from text or synthetic data to a model folder.

An interrupted run resumes when it is started again with the same options. Under torchrun only the
first process measures, writes and prints.
"""

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Int
from rich.console import Console
from rich.progress import BarColumn, TimeRemainingColumn
from rich.progress import Progress as Bar
from torch import Tensor

from analyses.cli.options import to_toml
from analyses.cli.plans import Plan
from analyses.cli.run_folder import TOKENS, RunFolder, enter
from analyses.history import recording, step_files
from analyses.labelled import to_numpy
from circuits import distributed
from circuits.data import Batches, RepeatedTokens
from circuits.files import write
from circuits.io import load, save
from circuits.model import GPT, GPTConfig
from circuits.training import (
    Progress,
    Record,
    Snapshots,
    Watch,
    gather_model,
    train,
    write_log,
)

MEASURED = 128
"The number of held-out rows for the measurements of each record."
Rows = Int[Tensor, "batch pos"]


def train_model(plan: Plan) -> GPT:
    """Train a model by the plan, write its folder, and return it. Without text it trains on
    BOS + R + R, where R has 8 to (n_ctx - 1) / 2 random tokens."""
    with enter(plan.out) as folder:
        if distributed.of_rank_0(int(folder.finished), torch.device(plan.device)):
            return load(plan.out)
        if plan.corpus is None:
            model, data, unseen = _repeated_tokens(plan)
            about: dict = {"data": "repeated tokens"}
        else:
            model, data, unseen = _text(plan, folder)
            about = {**plan.corpus.about(), "vocab": plan.shape["d_vocab"]}
        if distributed.rank() == 0:
            rows = to_numpy(unseen[:MEASURED].long().contiguous()).tobytes()
            measured_on = {
                "examples": plan.options.examples,
                "held-out rows": hashlib.sha256(rows).hexdigest()[:16],
            }
            folder.begin({**about, **measured_on}, ("vocab", *measured_on))
            if not folder.has_snapshot() or not (plan.out / "run.toml").exists():
                write(
                    plan.out / "run.toml",
                    to_toml(replace(plan.options, every=plan.recipe.evaluate_every)),
                )
        return _train(model, data, unseen, folder, plan)


def _repeated_tokens(plan: Plan) -> tuple[GPT, Batches, Rows]:
    cfg = GPTConfig(**plan.shape)
    longest = (cfg.n_ctx - 1) // 2
    data = RepeatedTokens(cfg.d_vocab, shortest=min(8, longest), longest=longest, seed=cfg.seed)
    unseen = RepeatedTokens(cfg.d_vocab, shortest=longest, longest=longest, seed=cfg.seed + 1)
    return _placed(GPT(cfg), plan), data, unseen.batch(0, max(MEASURED, plan.options.examples))


def _text(plan: Plan, folder: RunFolder) -> tuple[GPT, Batches, Rows]:
    console, corpus, wanted = _console(), plan.corpus, plan.shape["d_vocab"]
    assert corpus is not None

    def read() -> tuple[GPT, Batches, Rows]:
        file, cache = plan.out / "tokenizer.json", plan.options.cache or plan.out / TOKENS
        resumed = folder.has_snapshot() or distributed.rank() > 0
        vocabulary = corpus.vocabulary(file, wanted, plan.tokenizer, resumed=resumed)
        if vocabulary.size < wanted and plan.tokenizer is None:
            console.print(f"this text makes {vocabulary.size} tokens, not {wanted}")
        cfg = GPTConfig(**{**plan.shape, "d_vocab": vocabulary.size})
        windows = corpus.windows(vocabulary, cfg.n_ctx, cache, seed=cfg.seed)
        console.print(f"{len(windows.docs):,} documents, {windows.tokens:,} tokens")
        unseen = corpus.evaluation(vocabulary, cfg.n_ctx, max(MEASURED, plan.options.examples))
        return _placed(GPT(cfg, vocabulary), plan), windows, unseen

    with console.status("reading text"):
        return distributed.first_alone(read, torch.device(plan.device))


def _train(model: GPT, data: Batches, unseen: Rows, folder: RunFolder, plan: Plan) -> GPT:
    options, recipe, records = plan.options, plan.recipe, []
    wanted = options.examples or options.keep_weights
    steps = frozenset(recording.history_steps(recipe.steps) if wanted else ())
    kept = steps if options.keep_weights else frozenset()
    snapshots = Snapshots(folder=plan.out / "snapshots", weights_at=kept)
    evaluated = unseen[:MEASURED, : model.cfg.n_ctx]
    history = _History(steps, unseen[: options.examples], plan.out / "history")
    columns = ("step {task.completed}/{task.total}", BarColumn(), "{task.description}",
               TimeRemainingColumn())  # fmt: skip
    # The speed is a mean over ten minutes, because records of the history are not evenly spaced.
    with Bar(*columns, console=_console(), speed_estimate_period=600) as bar:
        watchers: list[Watch] = [_Shown(bar, recipe.steps), history, _compared(bar, plan.like)]
        if options.until is not None:
            watchers.append(_ended(options.until))
        for record in train(
            model, data, recipe, lambda seen: recording.log_entry(seen, evaluated),
            snapshots=snapshots, shard=options.shard,
            watch=lambda *now: any([watcher(*now) for watcher in watchers]),
        ):  # fmt: skip
            records.append(record)
            if (seen := gather_model(model)) is not None:
                save(seen, plan.out, overwrite=True)
                write_log(records, recipe, plan.out)
                bar.print(_line(record))
    if distributed.rank() == 0 and records and records[-1]["step"] == recipe.steps:
        if wanted:
            recording.collect(history.folder, plan.out, history.progress.losses)
        folder.finish()
    return model.eval()


class _Shown:
    """A watcher that shows the progress and the speed of the run."""

    def __init__(self, bar: Bar, steps: int) -> None:
        self.bar, self.task = bar, bar.add_task("", total=steps)
        self.begun: tuple[int, float] | None = None

    def __call__(self, model: GPT, progress: Progress) -> None:
        now = (progress.tokens, progress.seconds)
        if self.begun is None:  # the speed does not count steps before the run resumed
            self.begun = now
            self.bar.reset(self.task, completed=progress.step)
            if progress.step:
                self.bar.print(f"resuming from step {progress.step}")
            return
        tokens, seconds = (b - a for a, b in zip(self.begun, now, strict=True))
        words = f"loss {progress.losses[-1]:.3f}  {tokens / max(seconds, 1e-9):,.0f} tokens/s"
        self.bar.update(self.task, completed=progress.step, description=words)


class _History:
    """A watcher that records the history at the given steps."""

    def __init__(self, steps: frozenset[int], rows: Rows, folder: Path) -> None:
        self.steps, self.rows, self.folder = steps, rows, folder
        self.progress = Progress()

    def __call__(self, model: GPT, progress: Progress) -> None:
        self.progress = progress
        if progress.step in self.steps and (seen := gather_model(model)) is not None:
            recording.record(seen, progress, self.rows, self.folder)


def _compared(bar: Bar, like: Path | None) -> Watch:
    """A watcher that compares the first losses with the record of another run."""
    record = _recorded_losses(like)

    def compare(model: GPT, progress: Progress) -> None:
        if len(record) and progress.step == len(record):
            apart = np.abs(np.array(progress.losses[: len(record)]) - record).max()
            bar.print(f"the first {len(record)} losses are within {apart:.1e} nats of the record")

    return compare


def _ended(until: int) -> Watch:
    """A watcher that ends the run after step `until`."""
    return lambda model, progress: progress.step >= until


def _recorded_losses(folder: Path | None, count: int = 50) -> np.ndarray:
    if folder is None or not (folder / step_files.FILE).is_file():
        return np.empty(0)
    return step_files.arrays_of(folder / step_files.FILE)["step_loss"][:count]


def _placed(model: GPT, plan: Plan) -> GPT:
    return model if plan.options.shard else model.to(plan.device)  # FSDP2 places the parts


def _console() -> Console:
    return Console(stderr=True, quiet=distributed.rank() > 0)


def _line(record: Record) -> str:
    rate = record["tokens"] / max(record["seconds"], 1e-9)
    shown = [name for name in record if name not in ("step", "tokens", "seconds")]
    rest = "  ".join(f"{name} {record[name]:.2f}" for name in shown)
    return f"step {record['step']:.0f}  {record['tokens'] / 1e6:.1f}M tokens, {rate:,.0f}/s  {rest}"
