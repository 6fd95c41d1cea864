"""`circuits` on the command line. Nothing heavy is imported before a command runs."""

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    help="Take transformers apart, and draw the papers' figures on models that ship.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@app.command()
def train(
    out: Annotated[Path, typer.Option(help="folder for the model, its recipe and its log")],
    data: Annotated[
        list[Path] | None, typer.Option(help="text file or folder; repeat for several")
    ] = None,
    held_out: Annotated[
        list[Path] | None, typer.Option(help="text to measure on; else every 50th document")
    ] = None,
    repeated_tokens: Annotated[
        bool, typer.Option("--repeated-tokens", help="train on BOS + R + R instead of on text")
    ] = False,
    layers: int = 2,
    heads: int = 8,
    d_head: int = 32,
    context: Annotated[int, typer.Option(help="tokens per window, n_ctx")] = 256,
    vocab: Annotated[int, typer.Option(help="size of the byte-pair vocabulary")] = 2048,
    steps: int = 4000,
    batch_size: int = 16,
    lr: float = 2e-3,
    muon_lr: float = 0.01,
    repeats: Annotated[float, typer.Option(help="share of windows that repeat a passage")] = 0.0,
    every: Annotated[int, typer.Option(help="steps between records and snapshots")] = 250,
    smeared_keys: Annotated[bool, typer.Option("--smeared-keys")] = False,
    seed: int = 0,
) -> None:
    """Train an attention-only model on your own text, or on repeated random tokens."""
    from analyses import runs

    if repeated_tokens == bool(data):
        raise typer.BadParameter("give either --data or --repeated-tokens")
    from circuits.training import Recipe

    recipe = Recipe(
        steps=steps, batch_size=batch_size, lr=lr, muon_lr=muon_lr, evaluate_every=every
    )
    shape = {
        "n_layers": layers,
        "n_heads": heads,
        "d_head": d_head,
        "d_model": heads * d_head,
        "n_ctx": context,
        "d_vocab": vocab,
        "smeared_keys": smeared_keys,
        "seed": seed,
    }
    if repeated_tokens:
        runs.on_repeated_tokens(out, shape, recipe)
    else:
        runs.on_text(out, shape, recipe, data or [], held_out or [], repeats=repeats)


@app.command(name="list")
def list_() -> None:
    """The models that ship and the figures that can be drawn."""
    from circuits.pretrained import models

    for name in models():
        typer.echo(name)


if __name__ == "__main__":
    app()
