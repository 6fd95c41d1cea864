"""`circuits evaluate` and `circuits measure`. Slow imports are inside the commands."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from xarray import Dataset


def evaluate(
    model: Annotated[str, typer.Argument(help="a model that ships, or a folder")],
    data: Annotated[
        list[Path] | None, typer.Option(help="text file, folder or glob; repeat for several")
    ] = None,
    dataset: Annotated[str, typer.Option(help="or a Hugging Face dataset, streamed")] = "",
    documents: Annotated[int | None, typer.Option(help="the largest number of documents")] = None,
    windows: Annotated[int, typer.Option(help="the largest number of windows; 0: all")] = 0,
    batch: Annotated[int, typer.Option(help="windows at a time, of each process")] = 16,
    cache: Annotated[Path | None, typer.Option(help="keep tokenised text here")] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda; else a GPU if there is one")] = "",
) -> None:
    """A model's loss and its heads' attention on your own text; also under torchrun."""
    import torch
    from rich.progress import track

    from analyses.cli.corpus import Corpus
    from analyses.cli.plans import usual_device
    from analyses.history import evaluation
    from circuits import distributed
    from circuits.io import load

    if bool(data) == bool(dataset):
        raise typer.BadParameter("give one of --data and --dataset")
    if batch < 1 or windows < 0:
        raise typer.BadParameter("--batch is 1 or more and --windows 0 or more")
    corpus = Corpus(data=data or [], dataset=dataset or None, documents=documents)
    where = torch.device(usual_device(device))
    gpt = load(model).to(where)
    vocabulary = gpt.tokenizer
    if vocabulary is None:
        raise ValueError(f"{model} reads no text: it has no tokenizer")
    with distributed.group("nccl" if where.type == "cuda" else "gloo"):
        text = distributed.first_alone(
            lambda: corpus.everything(vocabulary, gpt.cfg.n_ctx, cache), where
        )
        many = min(windows or text.per_epoch, text.per_epoch)
        size = min(batch * distributed.world(), many)
        steps = track(range(-(-many // size)), "windows", disable=distributed.rank() > 0)
        batches = (text.batch(step, size)[: many - step * size] for step in steps)
        seen = evaluation.evaluate_on(gpt, batches)
        if distributed.rank() == 0:
            _print(seen, model)


def measure(
    folder: Annotated[str, typer.Argument(help="of a finished run with --keep-weights")],
    held_out: Annotated[list[Path], typer.Option(help="text to measure on; repeat for several")],
    examples: Annotated[int, typer.Option(help="windows of it")] = 128,
    every: Annotated[int, typer.Option(help="measure each n-th of the steps that were kept")] = 1,
) -> None:
    """Measure the whole history of a run again, from the weights it kept; also under torchrun."""
    from analyses.cli.corpus import Corpus
    from analyses.history import recording
    from circuits import distributed
    from circuits.io import folder_of, load

    gpt = load(folder)
    if gpt.tokenizer is None:
        raise ValueError(f"{folder} reads no text: it has no tokenizer")
    corpus = Corpus(data=held_out, held_out=held_out)
    rows = corpus.evaluation(gpt.tokenizer, gpt.cfg.n_ctx, examples)
    with distributed.group("gloo"):
        recording.remeasure(folder_of(folder), rows, every)


def _print(seen: "Dataset", model: str) -> None:
    from rich import box
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    error, context = float(seen.held_out_error), float(seen.in_context_score)
    title = (
        f"{escape(model)} on {seen.attrs['windows']:,} windows of text: loss "
        f"{float(seen.held_out):.3f} +- {error:.3f} nats, in-context score {context:+.2f}; mean "
        f"attention, each column over positions of its own, on"
    )
    table = Table(title=title, box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for name in ("head", *seen.behaviour.values):
        table.add_column(
            str(name).replace(" ", "\n"), justify="left" if name == "head" else "right"
        )
    for layer in seen.layer.values:
        for head in seen["head"].values:
            row = seen.sel(layer=layer, head=head)
            pairs = zip(row.attention.values, row.attention_error.values, strict=True)
            cells = [f"{mean:.3f} +- {error:.3f}" for mean, error in pairs]
            table.add_row(str(row.label.values), *cells)
    table.add_row("uniform", *(f"{chance:.3f}" for chance in seen.chance.values))
    Console(width=None if Console().is_terminal else 100).print(table)
