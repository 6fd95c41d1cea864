"""One figure of the report: its picture goes into files, what is said about it into an Entry."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePath

import matplotlib
import matplotlib.pyplot as plt
import torch

from analyses.papers import figures
from analyses.papers.figures import Drawing, LeftOut, Verdict
from circuits.model import GPT

PAPERS = {
    "framework": "A Mathematical Framework for Transformer Circuits",
    "induction": "In-context Learning and Induction Heads",
    "circuits": "Automated Circuit Discovery and Attribution Patching",
}
OURS = ("index.html", "results.json", "arguments.html")
"Files of the report itself, which no figure may write."


@dataclass(frozen=True)
class Entry:
    """What the report knows of one figure, drawn or failed. It holds no picture, and so travels
    between processes; the fields of a Drawing are empty if the figure failed."""

    name: str
    model: str
    "The name or folder of the model it was to be drawn from; empty for the usual ones of several."
    title: str = ""
    source: str = ""
    caption: str = ""
    verdict: Verdict | None = None
    html: str = ""
    pages: Mapping[str, str] = field(default_factory=dict)
    size: tuple[int, int] = (0, 0)
    "Width and height of the picture in CSS pixels, of which an inch has 96."
    seconds: float = 0.0
    error: str = ""
    left_out: str = ""
    "Why the figure says nothing about the model that was asked for."

    @property
    def models(self) -> tuple[str, ...]:
        """The models that it shows."""
        return figures.drawn_from(self.name, self.model)

    @property
    def paper(self) -> str:
        """The first part of the name, a key of PAPERS."""
        return self.name.split("/")[0]

    @property
    def file(self) -> str:
        """The picture's file name without its ending, .png or .svg."""
        return self.name.replace("/", "-")

    @property
    def files(self) -> list[str]:
        """Names of all files that the figure brings."""
        pictures = [] if self.verdict is None else [f"{self.file}.png", f"{self.file}.svg"]
        return [*pictures, *self.pages]


def drawn(name: str, model: str, folder: Path, loaded: Callable[[str], GPT]) -> Entry:
    """Draw a figure from the model that `loaded` gives for its name, and put PNG and SVG into the
    folder. Whatever goes wrong with the model or the figure is the entry's `error`.

    Drawn by one torch thread and with matplotlib's own settings: who draws it, and how many others
    are drawn at the same time, changes no digit.
    """
    before, start = set(plt.get_fignums()), time.perf_counter()
    try:
        with plain_matplotlib(), _one_thread():
            drawing = figures.draw(name, model, loaded)
            _check(drawing.pages)
            _save(drawing, folder / name.replace("/", "-"))
        width, height = drawing.figure.get_size_inches()
        return Entry(
            name,
            model,
            drawing.title,
            drawing.source,
            drawing.caption,
            drawing.verdict,
            drawing.html,
            dict(drawing.pages),
            (round(96 * width), round(96 * height)),
            time.perf_counter() - start,
        )
    except LeftOut as reason:
        seconds = time.perf_counter() - start
        return Entry(name, model, seconds=seconds, left_out=str(reason))
    except Exception as error:  # the report goes on, and says so
        seconds = time.perf_counter() - start
        return Entry(name, model, seconds=seconds, error=in_words(error))
    finally:
        for number in set(plt.get_fignums()) - before:
            plt.close(number)


def in_words(error: Exception) -> str:
    """The kind of an error and its message, in one line."""
    message = error.args[0] if isinstance(error, KeyError) and error.args else error
    return f"{type(error).__name__}: {message}"


@contextmanager
def plain_matplotlib() -> Iterator[None]:
    """matplotlib's own settings, with small letters and the same SVG each time, for a while."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update({"font.size": 9, "svg.hashsalt": "circuits"})
        yield


@contextmanager
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _save(drawing: Drawing, path: Path) -> None:
    for ending, metadata in (("png", {}), ("svg", {"Date": None})):
        file = path.with_name(f"{path.name}.{ending}")
        drawing.figure.savefig(file, dpi=160, facecolor="white", metadata=metadata)
        drawing.figure.set_layout_engine("none")  # laid out once for both: it is slow


def _check(pages: Mapping[str, str]) -> None:
    for file in pages:
        plain = PurePath(file).name == file and file.endswith(".html")
        if not plain or file in OURS:
            raise ValueError(f"a page must be a plain name in .html, not of {OURS}; got {file!r}")
