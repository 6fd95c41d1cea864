"""`circuits` on the command line. Slow imports are inside the commands."""

from typing import TYPE_CHECKING, Annotated

import typer

from analyses.cli.explore import explore
from analyses.cli.figures import draw, reproduce
from analyses.cli.measure import evaluate, measure
from analyses.cli.models import models
from analyses.cli.train import train

if TYPE_CHECKING:
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
app.command()(models)


@app.command(name="list")
def list_() -> None:
    """The models that ship and the figures that can be drawn."""
    from analyses.papers.figures import EVERY, every
    from analyses.papers.report import PAPERS
    from circuits.io import models as shipped

    typer.echo("models that ship: `circuits models` says more")
    for name in shipped():
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
