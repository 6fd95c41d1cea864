"""One figure of the report: its picture goes into files, its words into an Entry."""

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
    """What the report knows of one figure, drawn or failed. It holds no picture, and so travels
    between processes; the fields of a Drawing are empty if the figure failed."""

    name: str
    model: str
    "The name or folder of the model that was asked for; empty for the usual ones."
    source: str = ""
    caption: str = ""
    verdict: Verdict | None = None
    html: str = ""
    pages: Mapping[str, str] = field(default_factory=dict)
    size: tuple[int, int] = (0, 0)
    "Width and height of the picture in CSS pixels, of which an inch has 96; (0, 0) without one."
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
        """The state, but "identity" for a law that holds and "again" for a test that another figure
        shows too: they are counted apart."""
        if self.verdict and self.figure.same_as:
            return "again"
        return "identity" if self.figure.identity and self.state == "holds" else self.state

    @property
    def pictured(self) -> bool:
        """Whether it has a picture: not if it failed, or if no model can show anything."""
        return self.size != (0, 0)

    @property
    def file(self) -> str:
        """The picture's file name without its ending, .png or .svg."""
        return self.name.replace("/", "-")

    @property
    def files(self) -> list[str]:
        """Names of all files that the figure brings."""
        pictures = [f"{self.file}.png", f"{self.file}.svg"] if self.pictured else []
        return [*pictures, *self.pages]


def drawn(name: str, model: str, folder: Path, loaded: Loaded) -> Entry:
    """Draw a figure from the model that `loaded` gives for its name, and put PNG and SVG into the
    folder. If anything goes wrong with the model or the figure, that is the entry's `error`.

    Drawn by one torch thread and with matplotlib's own settings: who draws it, and how many others
    are drawn at the same time, changes no digit.
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
    except Exception as error:  # the report goes on, and says so
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


def _saved(picture: Picture | None, path: Path) -> tuple[int, int]:
    """Writes a picture as PNG and SVG; its size as Entry has it."""
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
