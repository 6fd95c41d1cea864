"""`circuits` on the command line. Slow imports are inside the commands."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from analyses.cli.explore import explore
from analyses.cli.figures import draw, reproduce
from analyses.cli.measure import evaluate, measure
from analyses.cli.train import train

if TYPE_CHECKING:
    from xarray import Dataset

    from circuits.model import GPT

app = typer.Typer(
    help="Take transformers apart, and draw the papers' figures on models that ship.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


app.command()(reproduce)
app.command()(draw)
app.command()(train)
app.command()(evaluate)
app.command()(measure)
app.command()(explore)


@app.command()
def models() -> None:
    """The models that ship: sizes, scores after training, and the steps at which heads formed."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    from analyses.history import dynamics
    from circuits.io import folder_of, saved_config
    from circuits.io import models as shipped

    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    formed = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), show_header=False)
    columns = (
        "model", "layers\nx heads", "d_model", "d_vocab", "M tokens\nseen", "held-out\nloss",
        "in-context\nscore", "prefix\nmatching",
    )  # fmt: skip
    for column in columns:
        justify = "left" if column == "model" else "right"
        table.add_column(column, justify=justify, no_wrap=True)
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


@app.command(name="list")
def list_() -> None:
    """The models that ship and the figures that can be drawn."""
    from analyses.papers.figures import EVERY, every
    from analyses.papers.report import PAPERS
    from circuits.io import models

    typer.echo("models that ship: `circuits models` says more")
    for name in models():
        typer.echo(f"  {name}")
    for paper, title in PAPERS.items():
        typer.echo(f"\nfigures of {title}")
        for name in every():
            if name.startswith(f"{paper}/"):
                typer.echo(f"  {name:31}{EVERY[name].summary}")
    typer.echo("\n`circuits draw NAME` draws one figure, `circuits reproduce` draws all.")


@app.command()
def heads(
    model: Annotated[str, typer.Argument(help="a model that ships, or a folder")] = "attn-only-2l",
) -> None:
    """A table of the heads: the attention of each head to the first token, to the previous token,
    and so on.

    Each column has its own prompts and positions, so a row may sum to more than 1. A head's role is
    the behaviour with its largest score above the threshold. The margin is the smallest change of
    one score that would change the role.
    """
    from rich import box
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from analyses.heads import attention, copying

    gpt = _loaded(model)
    scores, copied = attention.taxonomy(gpt), copying.score(gpt)
    threshold = scores.attrs["threshold"]
    title = (f"{escape(model)}: mean attention on random tokens, each column over positions of its "
             f"own; a role needs {threshold}")  # fmt: skip
    table = Table(title=title, box=box.SIMPLE_HEAD, padding=0)
    for name in ("head", "role", "margin", *scores.behaviour.values, "OV copying"):
        justify = "left" if name in ("head", "role") else "right"
        table.add_column(str(name).replace(" ", "\n"), justify=justify)
    for layer in scores.layer.values:
        for head in scores["head"].values:
            row = scores.sel(layer=layer, head=head)
            role, margin = str(row.role.values), f"{float(row.margin):.2f}"
            cells = [f"[bold]{v:.2f}[/bold]" if v > threshold else f"{v:.2f}" for v in row.values]
            ov = f"{float(copied.sel(layer=layer, head=head)):+.2f}"
            table.add_row(str(row.label.values), role, margin, *cells, ov)
    Console().print(table)


def _heads_and_steps(history: "Dataset") -> Iterator[str]:
    from analyses.history import dynamics

    ends, steps = history.prefix_matching[-1], dynamics.formed(history)
    for label, end, step in zip(*(x.values.flat for x in (ends.label, ends, steps)), strict=True):
        yield f"{label} {end:.2f}" + ("" if step != step else f" (step {step:,.0f})")


def _loaded(model: str) -> "GPT":
    from circuits.io import load

    return load(model)


def main() -> None:
    """The command line. A ValueError, KeyError or OSError becomes one line on standard error and
    exit status 2."""
    try:
        app()
    except (ValueError, KeyError, OSError) as error:
        said = error.args[0] if isinstance(error, KeyError) and error.args else error
        typer.echo(f"circuits: {said}", err=True)
        raise SystemExit(2) from None


if __name__ == "__main__":
    main()
