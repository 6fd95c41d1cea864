"""`circuits` on the command line. Nothing heavy is imported before a command runs."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from circuits.model import GPT

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


@app.command()
def reproduce(
    paper: Annotated[str, typer.Argument(help="framework or induction; both if left out")] = "",
    model: Annotated[str, typer.Option(help="a model that ships, or a folder")] = "attn-only-2l",
    out: Annotated[Path, typer.Option(help="folder of the report")] = Path("report"),
    only: Annotated[list[str] | None, typer.Option(help="a figure; repeat for several")] = None,
) -> None:
    """Draw the papers' figures from a trained model into report/index.html."""
    from rich.progress import Progress

    from analyses import report
    from analyses.figures import FIGURES

    names = [name for name in FIGURES if name.startswith(f"{paper}/" if paper else "")]
    unknown = [name for name in only or () if name not in names]
    if unknown or not names:
        raise ValueError(f"no figure {unknown or paper!r}; there are {list(FIGURES)}")
    with _plain_matplotlib(), Progress() as progress:
        task = progress.add_task("drawing", total=len(only or names))

        def done(entry: report.Entry) -> None:
            verdict = entry.drawing.verdict if entry.drawing else None
            held = "failed" if verdict is None else "holds" if verdict.holds else "does not hold"
            progress.print(f"[bold]{entry.name}[/bold]  {held}", highlight=False)
            progress.print(f"  {verdict.says if verdict else entry.error}", highlight=False)
            progress.advance(task)

        entries = report.write(_loaded(model), model, out, only or names, done)
    typer.echo(f"report: {out / 'index.html'}")
    if any(entry.drawing is None for entry in entries):
        raise typer.Exit(1)


@app.command()
def draw(
    figure: Annotated[str, typer.Argument(help="a figure named by `circuits list`")],
    model: Annotated[str, typer.Option(help="a model that ships, or a folder")] = "attn-only-2l",
    out: Annotated[Path | None, typer.Option(help="picture file; the ending decides")] = None,
) -> None:
    """Draw one figure into a picture file, and print its verdict."""
    from analyses import figures

    file = out or Path(f"{figure.replace('/', '-')}.png")
    with _plain_matplotlib():
        drawing = figures.draw(figure, _loaded(model))
        drawing.figure.savefig(file, dpi=160, facecolor="white")
    held = "holds" if drawing.verdict.holds else "does not hold"
    typer.echo(f"{file}\n{held}: {drawing.verdict.says}")


@app.command(name="list")
def list_() -> None:
    """The models that ship and the figures that can be drawn."""
    from analyses.figures import FIGURES
    from circuits.pretrained import models

    typer.echo("models\n" + "\n".join(f"  {name}" for name in models()))
    typer.echo("figures")
    for name, function in FIGURES.items():
        summary = " ".join((function.__doc__ or "").split("\n\n")[0].split())
        typer.echo(f"  {name:28}{summary}")


@app.command()
def heads(
    model: Annotated[str, typer.Argument(help="a model that ships, or a folder")] = "attn-only-2l",
) -> None:
    """What each head attends to on random tokens, as a table."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    from analyses import attention, copying

    gpt = _loaded(model)
    scores, copied = attention.taxonomy(gpt), copying.score(gpt)
    threshold = scores.attrs["threshold"]
    title = f"{model}: mean attention on random tokens; a role needs {threshold}"
    table = Table(title=title, box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for name in ("head", "role", *scores.behaviour.values, "OV copying"):
        justify = "left" if name in ("head", "role") else "right"
        table.add_column(str(name).replace(" ", "\n"), justify=justify)
    for layer in scores.layer.values:
        for head in scores["head"].values:
            row = scores.sel(layer=layer, head=head)
            cells = [f"[bold]{v:.2f}[/bold]" if v > threshold else f"{v:.2f}" for v in row.values]
            ov = f"{float(copied.sel(layer=layer, head=head)):+.2f}"
            table.add_row(str(row.label.values), str(row.role.values), *cells, ov)
    Console().print(table)


def _loaded(model: str) -> "GPT":
    from circuits.pretrained import load

    return load(model)


@contextmanager
def _plain_matplotlib() -> Iterator[None]:
    """No window system and matplotlib's own defaults, for the length of one command."""
    import matplotlib

    with matplotlib.rc_context():
        matplotlib.use("agg")
        matplotlib.rcParams.update({"font.size": 9, "svg.hashsalt": "circuits"})
        yield


def main() -> None:
    """The command line; an error of ours is one line on standard error and exit status 2."""
    try:
        app()
    except (ValueError, KeyError) as error:
        typer.echo(f"circuits: {error.args[0] if error.args else error}", err=True)
        raise SystemExit(2) from None


if __name__ == "__main__":
    main()
