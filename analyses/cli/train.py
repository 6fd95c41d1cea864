"""`circuits train`. Slow imports are inside the command."""

from pathlib import Path
from typing import Any

from analyses.cli.options import command, read, together


@command
def train(file: Path | None, **given: Any) -> None:
    """Train a model on your own text, or on repeated random tokens; also under torchrun.

    Options can come from a TOML file; options on the command line override the file. A run writes
    its options to run.toml in its folder.
    """
    import typer

    options, said = together(read(file) if file else {}, given)
    if options.out is None:
        raise typer.BadParameter("give the model's folder: --out, or a line of the file")
    if options.repeated_tokens == bool(options.data or options.dataset):
        raise typer.BadParameter("give one of --data, --dataset and --repeated-tokens")
    if options.tokenizer and "vocab" in said:
        raise typer.BadParameter("--tokenizer already sets the vocabulary: leave out --vocab")

    from analyses.cli import plans, runs
    from circuits import distributed

    plan = plans.plan(options, said)
    with distributed.group("nccl" if plan.device.startswith("cuda") else "gloo"):
        runs.train_model(plan)
