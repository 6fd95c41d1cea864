"""Whole training runs for `circuits train`: text or synthetic data in, a model folder out.

The architecture is the framework paper's at small scale: attention-only, layer norm at every read,
untied embeddings, sinusoids on the inputs of W_Q and W_K alone. On text their amplitude and base
are what it takes for previous-token heads to form in layer 0 of so small a model.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from analyses import attention, induction
from circuits.config import GPTConfig
from circuits.data import Batches, RepeatedTokens, Windows, documents, tokenized, train_tokenizer
from circuits.model import GPT
from circuits.pretrained import save
from circuits.training import Recipe, Record, train, write_log

POSITIONS = {
    "positional_embedding_type": "shortformer_sinusoidal",
    "sinusoid_base": 100.0,
    "sinusoid_scale": 3.0,
}


def on_text(
    out: Path,
    shape: dict[str, Any],
    recipe: Recipe,
    data: Sequence[Path],
    held_out: Sequence[Path] = (),
    *,
    repeats: float = 0.0,
) -> GPT:
    """Train on the documents of text files, with a tokenizer trained on them, and save to `out`.

    Held-out loss is measured on `held_out`, or on every 50th document, which is then left out.
    """
    _refuse_existing(out)
    console = Console(stderr=True)
    with console.status("reading text and training the tokenizer"):
        texts = list(documents(*data))
        kept = texts if held_out else [text for i, text in enumerate(texts) if i % 50]
        unseen = list(documents(*held_out)) if held_out else texts[::50]
        vocabulary = train_tokenizer(kept, shape["d_vocab"])
        cfg = GPTConfig(**{**shape, **POSITIONS, "d_vocab": vocabulary.size})
        rows = tokenized(kept, vocabulary)
    windows = Windows(rows, cfg.n_ctx, vocabulary.bos, repeats=repeats, seed=cfg.seed)
    console.print(f"{len(rows)} documents, {windows.tokens:,} tokens")
    unseen_rows = Windows(tokenized(unseen, vocabulary), cfg.n_ctx, vocabulary.bos).batch(0, 128)
    return _run(GPT(cfg, vocabulary), windows, recipe, out, unseen_rows[:, :-1], console)


def on_repeated_tokens(out: Path, shape: dict[str, Any], recipe: Recipe) -> GPT:
    """Train on BOS + R + R, R of 8 to n_ctx/2 - 1 random tokens, and save to `out`."""
    _refuse_existing(out)
    cfg = GPTConfig(**shape, positional_embedding_type="shortformer_sinusoidal")
    longest = (cfg.n_ctx - 1) // 2
    data = RepeatedTokens(cfg.d_vocab, shortest=min(8, longest), longest=longest, seed=cfg.seed)
    unseen = RepeatedTokens(cfg.d_vocab, shortest=longest, longest=longest, seed=cfg.seed + 1)
    return _run(GPT(cfg), data, recipe, out, unseen.batch(0, 128), Console(stderr=True))


def measured(model: GPT, unseen: torch.Tensor) -> Record:
    """Held-out loss (nats), the best head's scores, the loss on either copy of random tokens."""
    with torch.no_grad():
        held_out = torch.cat(
            [model(rows, return_type="loss", loss_per_token=True) for rows in unseen.split(16)]
        )
    loss = induction.loss_by_position(model, batch=8)
    second = loss.position >= loss.attrs["repeat"]
    previous = attention.previous_token(model)
    return {
        "held_out": held_out.mean().item(),
        "prefix_matching": float(attention.prefix_matching(model).max()),
        "previous_token_layer_0": float(previous[0].max()),
        "first_copy": float(loss[:, ~second].mean()),
        "second_copy": float(loss[:, second].mean()),
    }


def _run(
    model: GPT, data: Batches, recipe: Recipe, out: Path, unseen: torch.Tensor, console: Console
) -> GPT:
    records: list[Record] = []
    columns = (TextColumn("step {task.completed}/{task.total}"), BarColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("train", total=recipe.steps)
        for record in train(model, data, recipe, lambda model: measured(model, unseen)):
            records.append(record)
            save(model, out, overwrite=True)
            write_log(records, recipe, out)
            progress.update(task, completed=record["step"])
            progress.print(_line(record))
    return model.eval()


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


def _refuse_existing(out: Path) -> None:
    if (out / "config.json").exists():
        raise ValueError(f"{out} already holds a model: choose another folder, or move it away")
