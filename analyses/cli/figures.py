"""`circuits reproduce` and `circuits draw`. Slow imports are inside the commands."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from analyses.papers.figures import Figure, Verdict

JOBS = 2
"33 figures of one model on two cores took 27 s with two processes, and 42 s with one."
MODEL = "a model that ships, or a folder; by default every model that fits the claim"


def reproduce(
    paper: Annotated[str, typer.Argument(help="framework or induction; both if left out")] = "",
    only: Annotated[list[str] | None, typer.Option(help="a figure; repeat for several")] = None,
    model: Annotated[str, typer.Option(help=MODEL)] = "",
    out: Annotated[Path, typer.Option(help="folder of the report")] = Path("report"),
    jobs: Annotated[int, typer.Option(help="processes that draw, side by side")] = JOBS,
) -> None:
    """Draw the papers' figures from trained models into report/index.html."""
    from rich.markup import escape
    from rich.progress import Progress

    from analyses.papers import report
    from analyses.papers.figures import every

    names = [name for name in every() if name.startswith(f"{paper}/" if paper else "")]
    if not names:
        raise ValueError(f"no paper {paper!r}; there are {list(report.PAPERS)}")
    chosen = [report.known(name, names) for name in only or names]
    with _window_free(), _ended_in_order(), Progress() as progress:
        task = progress.add_task("drawing", total=len(dict.fromkeys(chosen)))

        def done(entry: report.Entry) -> None:
            words = _in_words(entry.verdict) if entry.verdict else entry.left_out or entry.error
            progress.print(f"[bold]{entry.name}[/bold]  {entry.state}", highlight=False)
            progress.print(f"  {escape(words)}", highlight=False)
            progress.advance(task)

        entries = report.write(out, chosen, model or None, min(jobs, len(chosen)), done)
    typer.echo(f"report: {out / 'index.html'}")
    if any(entry.error for entry in entries):
        raise typer.Exit(1)


def draw(
    figure: Annotated[str, typer.Argument(help="a figure named by `circuits list`")],
    model: Annotated[str, typer.Option(help=MODEL)] = "",
    out: Annotated[Path | None, typer.Option(help="picture file; the ending decides")] = None,
    seeds: Annotated[int, typer.Option(help="of a toy: train and judge seeds 0 to n-1")] = 1,
) -> None:
    """Draw one figure into a picture file, and print its verdict. There is no file where no model
    can show anything."""
    from analyses.papers import figures, report
    from circuits.files import replacing

    record = _with_seeds(figures.EVERY[report.known(figure)], seeds)
    file = out or Path(f"{figure.replace('/', '-')}.png")
    with _window_free(), report.plain_matplotlib():
        _check_picture(file)
        drawing = record.draw(model)
        if drawing.figure:
            with replacing(file) as part:  # a temporary name with the same ending
                drawing.figure.savefig(part, dpi=160, facecolor="white")
    words = _in_words(drawing.verdict)
    shown, judged = (", ".join(names(model)) or "a model of its own"
                     for names in (record.shown, record.judged))  # fmt: skip
    also = "" if judged == shown else f", judged on {judged}"
    first = f"{file}: drawn from" if drawing.figure else "no picture: nothing can be shown of"
    typer.echo(f"{first} {shown}{also}\n{drawing.verdict.state}: {words}")


def _with_seeds(record: "Figure", seeds: int) -> "Figure":
    """The figure, trained from so many seeds; ValueError for a figure that trains nothing."""
    if seeds < 1 or (seeds > 1 and record.kind != "toy"):
        raise ValueError(f"--seeds is 1 or more, and above 1 only for a figure that trains models "
                         f"of its own; got {seeds} for {record.name}")  # fmt: skip
    return replace(record, seeds=tuple(range(seeds)))


def _in_words(verdict: "Verdict") -> str:
    return f"paper: {verdict.paper}; here: {verdict.here}"


def _check_picture(file: Path) -> None:
    """ValueError for a file whose ending is no picture format, and for a folder."""
    from matplotlib.backend_bases import FigureCanvasBase

    kinds = FigureCanvasBase.get_supported_filetypes()
    if file.is_dir() or file.suffix.removeprefix(".").lower() not in kinds:
        raise ValueError(f"{file} is no name of a picture: end it in one of {sorted(kinds)}")


@contextmanager
def _window_free() -> Iterator[None]:
    """matplotlib without a window system, during one command."""
    import matplotlib

    with matplotlib.rc_context():
        matplotlib.use("agg")
        yield


@contextmanager
def _ended_in_order() -> Iterator[None]:
    """SIGTERM raises SystemExit, so that no process and no incomplete report is left."""

    def end(number: int, frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
