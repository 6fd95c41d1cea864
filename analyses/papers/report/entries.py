"""One figure of the report: its picture goes into files, and its words go into an Entry."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any

import matplotlib
import matplotlib.pyplot as plt
import torch

from analyses.papers.figures import EVERY, Figure, LeftOut, Verdict, draw
from analyses.papers.figures.record import Picture
from circuits.model import GPT

PAPERS = {
    "framework": "A Mathematical Framework for Transformer Circuits",
    "induction": "In-context Learning and Induction Heads",
    "circuits": "Automated Circuit Discovery and Attribution Patching",
}
OURS = ("index.html", "results.json", "arguments.html")
"Files of the report itself, which no figure may write."
Loaded = Callable[[str], GPT]
"Gives the model of a name."


@dataclass(frozen=True)
class Entry:
    """The words, files and state of one figure in the report, drawn or failed. It holds no picture,
    so it can be sent between processes. The fields of a Drawing are empty if the figure failed."""

    name: str
    model: str
    "The name or folder of the model that was asked for; empty for the usual models."
    source: str = ""
    caption: str = ""
    verdict: Verdict | None = None
    html: str = ""
    pages: Mapping[str, str] = field(default_factory=dict)
    size: tuple[int, int] = (0, 0)
    "The width and height of the picture in CSS pixels (96 to an inch); (0, 0) without a picture."
    seconds: float = 0.0
    error: str = ""
    left_out: str = ""
    "Why the figure says nothing about the model that was asked for."

    @property
    def figure(self) -> Figure:
        """The record of the figure."""
        return EVERY[self.name]

    @property
    def models(self) -> tuple[str, ...]:
        """The models that it shows."""
        return self.figure.shown(self.model)

    @property
    def judged(self) -> tuple[str, ...]:
        """The models that the verdict is on."""
        return self.figure.judged(self.model)

    @property
    def state(self) -> str:
        """The state of the verdict, "left out" or "failed"."""
        if self.verdict:
            return self.verdict.state
        return "left out" if self.left_out else "failed"

    @property
    def kind(self) -> str:
        """The kind that the figure counts as: "identity" for a law that holds, "again" for a test
        that another figure shows too, and else its state."""
        if self.verdict and self.figure.same_as:
            return "again"
        return "identity" if self.figure.identity and self.state == "holds" else self.state

    @property
    def pictured(self) -> bool:
        """Whether the figure has a picture. It has none if it failed or no model can show
        anything."""
        return self.size != (0, 0)

    @property
    def file(self) -> str:
        """The picture's file name without its ending, .png or .svg."""
        return self.name.replace("/", "-")

    @property
    def files(self) -> list[str]:
        """The names of all files of the figure."""
        pictures = [f"{self.file}.png", f"{self.file}.svg"] if self.pictured else []
        return [*pictures, *self.pages]


def drawn(name: str, model: str, folder: Path, loaded: Loaded) -> Entry:
    """Draw a figure from the model that `loaded` gives for its name, and put PNG and SVG into the
    folder. If the model or the figure fails, the entry's `error` says why.

    It is drawn with one torch thread and with matplotlib's own settings. So its numbers do not
    depend on the process, or on the number of figures that are drawn at the same time.
    """
    before, start = set(plt.get_fignums()), time.perf_counter()
    try:
        with plain_matplotlib(), _one_thread():
            drawing = draw(name, model, loaded)
            _check(drawing.pages)
            size = _saved(drawing.figure, folder / name.replace("/", "-"))
        found: dict[str, Any] = {
            "source": drawing.source, "caption": drawing.caption, "verdict": drawing.verdict,
            "html": drawing.html, "pages": dict(drawing.pages), "size": size,
        }  # fmt: skip
    except LeftOut as reason:
        found = {"left_out": str(reason)}
    except Exception as error:  # the report goes on, with the error in it
        found = {"error": in_words(error)}
    finally:
        for number in set(plt.get_fignums()) - before:
            plt.close(number)
    return Entry(name, model, seconds=time.perf_counter() - start, **found)


def in_words(error: Exception) -> str:
    """The kind of an error and its message, in one line."""
    message = error.args[0] if isinstance(error, KeyError) and error.args else error
    return f"{type(error).__name__}: {message}"


@contextmanager
def plain_matplotlib() -> Iterator[None]:
    """Run a block with matplotlib's own settings, small letters, and the same SVG each time."""
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


def _saved(picture: Picture | None, path: Path) -> tuple[int, int]:
    """Write a picture as PNG and SVG. Returns its size in the unit of Entry."""
    if picture is None:
        return (0, 0)
    for ending, metadata in (("png", {}), ("svg", {"Date": None})):
        file = path.with_name(f"{path.name}.{ending}")
        picture.savefig(file, dpi=160, facecolor="white", metadata=metadata)
        picture.set_layout_engine("none")  # laid out once for both: it is slow
    width, height = picture.get_size_inches()
    return round(96 * width), round(96 * height)


def _check(pages: Mapping[str, str]) -> None:
    for file in pages:
        plain = PurePath(file).name == file and file.endswith(".html")
        if not plain or file in OURS:
            raise ValueError(f"a page must be a plain name in .html, not of {OURS}; got {file!r}")
