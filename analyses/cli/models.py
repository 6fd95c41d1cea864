"""`circuits models`. Slow imports are inside the commands."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.table import Table
    from torch import Tensor
    from xarray import Dataset

    from circuits.model import GPT

WINDOWS = 64
"The largest number of held-out windows on which a model is measured."


def models(
    names: Annotated[
        list[str] | None, typer.Argument(help="models or folders; each is measured on text")
    ] = None,
) -> None:
    """The models that ship: sizes, scores after training, and the steps at which heads formed.
    With names: the loss that each model has without its embedding, each layer and each head."""
    for name in names or []:
        _measured(name)
    if not names:
        _shipped()


def _shipped() -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    from analyses.history import dynamics
    from circuits.io import folder_of, saved_config
    from circuits.io import models as shipped

    table = _table(
        "model", "layers\nx heads", "d_model", "d_vocab", "M tokens\nseen", "held-out\nloss",
        "in-context\nscore", "prefix\nmatching",
    )  # fmt: skip
    formed = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), show_header=False)
    for name in shipped():
        folder, last = folder_of(name), dynamics.last_record(name)
        cfg = saved_config(folder)
        history = dynamics.history(name) if (folder / dynamics.FILE).is_file() else None
        score = f"{float(history.in_context_score[-1]):+.2f}" if history is not None else "-"
        seen = (("tokens", 1e-6, ".1f"), ("held_out", 1, ".2f"), ("prefix_matching", 1, ".2f"))
        cells = [f"{last[key] * unit:{form}}" if key in last else "-" for key, unit, form in seen]
        cells.insert(2, score)
        heads = f"{cfg.n_layers} x {cfg.n_heads}"
        shape = (heads, str(cfg.d_model), str(cfg.d_vocab))
        table.add_row(name, *shape, *cells)
        if history is not None:
            formed.add_row(name, ", ".join(_heads_and_steps(history)) or "no heads")
    console = Console(width=None if Console().is_terminal else 100)
    console.print(table)
    if formed.row_count:
        console.print(
            "Prefix matching of each head at the end (and the step at which it passed 0.3)"
        )
        console.print(formed)


def _measured(name: str) -> None:
    """Print the norm of each component of a model's final stream, the rise of the loss without it,
    and the rise of the loss without each head."""
    from rich.console import Console
    from rich.markup import escape

    from analyses.prompts import passages
    from circuits.io import load

    model = load(name)
    tokens = passages.held_out(model)[:WINDOWS]
    console = Console(width=None if Console().is_terminal else 100)
    console.print(_stream(model, tokens, escape(name)))
    if model.cfg.n_layers:
        console.print(_heads(model, tokens))


def _stream(model: "GPT", tokens: "Tensor", name: str) -> "Table":
    from analyses.terms import importance

    parts = importance.without_component(model, tokens)
    table = _table("component", "mean norm", "loss rises\nwithout it by")
    table.title = (f"{name}: the final stream on {len(tokens)} held-out windows, loss "
                   f"{parts.attrs['loss']:.2f} nats")  # fmt: skip
    for label in parts.component.values:
        part = parts.sel(component=label)
        table.add_row(str(label), f"{float(part.norm):.2f}", f"{float(part.rise):+.3f}")
    return table


def _heads(model: "GPT", tokens: "Tensor") -> "Table":
    from analyses.causal import ablation
    from analyses.heads import attention

    prefix, previous = attention.prefix_matching(model), attention.previous_token(model)
    rise = ablation.of_heads(model, tokens)
    table = _table("head", "prefix\nmatching", "previous\ntoken",
                   "loss rises\nif it writes 0", "patterns\nkept")  # fmt: skip
    for layer in range(model.cfg.n_layers):
        for head in range(model.cfg.n_heads):
            at = {"layer": layer, "head": head}
            scores = (f"{float(score.sel(at)):.2f}" for score in (prefix, previous))
            nats = (f"{value:+.3f}" for value in rise.sel(at).values.tolist())
            table.add_row(f"L{layer}H{head}", *scores, *nats)
    return table


def _table(first: str, *others: str) -> "Table":
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column(first)
    for column in others:
        table.add_column(column, justify="right", no_wrap=True)
    return table


def _heads_and_steps(history: "Dataset") -> Iterator[str]:
    from analyses.history import dynamics

    ends, steps = history.prefix_matching[-1], dynamics.formed(history)
    for label, end, step in zip(*(x.values.flat for x in (ends.label, ends, steps)), strict=True):
        yield f"{label} {end:.2f}" + ("" if step != step else f" (step {step:,.0f})")
