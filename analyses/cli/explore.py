"""`circuits explore`. Slow imports are inside the command."""

import sys
from pathlib import Path
from typing import Annotated

import typer


def explore(
    model: Annotated[str, typer.Argument(help="a model that ships, or a folder")],
    text: Annotated[str, typer.Argument(help="the text; - for standard input")],
    out: Annotated[Path, typer.Option(help="the page")] = Path("page.html"),
) -> None:
    """One page of all heads on a text: hover over a token to see its attention. Works offline."""
    from analyses import explorer
    from circuits.io import load

    read = sys.stdin.read() if text == "-" else text
    page = explorer.page(load(model), read, title=Path(model).name)
    page.save(out)
    typer.echo(f"{out} ({len(page.html.encode()) / 1e3:,.0f} kB)")
