"""`circuits train`: its options and what they come to. Nothing heavy is imported before it runs."""

import os
from collections.abc import Callable
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

if TYPE_CHECKING:
    from circuits.training import Recipe

Made = TypeVar("Made")


def train(
    out: Annotated[Path, typer.Option(help="the model's folder; a run cut off there goes on")],
    data: Annotated[
        list[Path] | None, typer.Option(help="text file, folder or glob; repeat for several")
    ] = None,
    dataset: Annotated[str, typer.Option(help="or a Hugging Face dataset, streamed")] = "",
    documents: Annotated[int | None, typer.Option(help="so many documents at most")] = None,
    held_out: Annotated[
        list[Path] | None, typer.Option(help="text to measure on; else every 50th document")
    ] = None,
    repeated_tokens: Annotated[
        bool, typer.Option("--repeated-tokens", help="train on BOS + R + R instead of on text")
    ] = False,
    recipe: Annotated[
        str, typer.Option(help="train as this model was: its config, recipe and tokenizer")
    ] = "",
    layers: int = 2,
    heads: int = 8,
    d_head: int = 32,
    width: Annotated[int, typer.Option(help="d_model; 0: heads * d-head")] = 0,
    mlp: Annotated[int, typer.Option(help="neurons of each MLP; 0: attention-only")] = 0,
    context: Annotated[int, typer.Option(help="tokens per window, n_ctx")] = 256,
    vocab: Annotated[int, typer.Option(help="size of the byte-pair vocabulary")] = 2048,
    tokenizer: Annotated[str, typer.Option(help="a model whose tokenizer is used")] = "",
    steps: int = 4000,
    batch_size: Annotated[int, typer.Option(help="rows per step, of all processes")] = 16,
    lr: float = 2e-3,
    muon_lr: float = 0.01,
    muon_decay: Annotated[float, typer.Option(help="weight decay of W_V, W_O and W_out")] = 0.0,
    embed_init: Annotated[
        float, typer.Option(help="standard deviation of W_E at first; 0: that of all weights")
    ] = 0.0,
    warmup: Annotated[int, typer.Option(help="steps")] = 100,
    accumulate: Annotated[int, typer.Option(help="micro-batches per step")] = 1,
    bf16: Annotated[bool, typer.Option("--bf16", help="bfloat16, for a GPU")] = False,
    compile: Annotated[
        bool, typer.Option("--compile", help="torch.compile, for long runs")
    ] = False,
    repeats: Annotated[float, typer.Option(help="share of windows that repeat a passage")] = 0.0,
    every: Annotated[int, typer.Option(help="steps between records and snapshots")] = 250,
    until: Annotated[int | None, typer.Option(help="stop after this step, to go on later")] = None,
    examples: Annotated[int, typer.Option(help="rows of the history; 0: none")] = 128,
    keep_weights: Annotated[
        bool, typer.Option("--keep-weights", help="of every step of the history")
    ] = False,
    cache: Annotated[Path | None, typer.Option(help="keep tokenised text here")] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda; else a GPU if there is one")] = "",
    shard: Annotated[
        bool, typer.Option("--shard", help="share out the weights (FSDP2), under torchrun")
    ] = False,
    smeared_keys: Annotated[bool, typer.Option("--smeared-keys")] = False,
    seed: int = 0,
) -> None:
    """Train a model on your own text, or on repeated random tokens; also under torchrun."""
    options = dict(locals())
    from analyses.cli import runs
    from analyses.cli.corpus import Corpus
    from circuits import distributed
    from circuits.io import folder_of
    from circuits.training import Recipe

    if repeated_tokens == bool(data or dataset):
        raise typer.BadParameter("give one of --data, --dataset and --repeated-tokens")
    if tokenizer and vocab != signature(train).parameters["vocab"].default:
        raise typer.BadParameter("--tokenizer says the vocabulary already: leave out --vocab")
    if recipe:
        how, shape, repeats = _as_it_was(options)
    else:
        how = Recipe(
            steps=steps, batch_size=batch_size, lr=lr, muon_lr=muon_lr,
            muon_decay=muon_decay, warmup=warmup,
            evaluate_every=every, accumulate=accumulate, bf16=bf16, compile=compile,
        )  # fmt: skip
        shape = {
            "n_layers": layers, "n_heads": heads, "d_head": d_head,
            "d_model": width or heads * d_head,
            "n_ctx": context, "d_vocab": vocab, "smeared_keys": smeared_keys, "seed": seed,
            **({"d_mlp": mlp, "act_fn": "gelu"} if mlp else {}),
            **({"embed_init_range": embed_init} if embed_init else {}),
        }  # fmt: skip
    like = folder_of(recipe) if recipe else None
    words = folder_of(tokenizer) if tokenizer else like
    plan = runs.Plan(
        out=out, every=every, until=until, examples=examples, keep_weights=keep_weights,
        cache=cache, device=usual_device(device), like=like, shard=shard,
        tokenizer=words / "tokenizer.json" if words and not repeated_tokens else None,
    )  # fmt: skip
    with distributed.group("nccl" if plan.device.startswith("cuda") else "gloo"):
        if repeated_tokens:
            runs.on_repeated_tokens(shape, how, plan)
        else:
            corpus = Corpus(
                data=data or [], dataset=dataset or None, documents=documents,
                held_out=held_out or [], repeats=repeats,
            )  # fmt: skip
            runs.on_text(shape, how, corpus, plan)


RECORDED = ("layers", "heads", "d_head", "width", "mlp", "context", "vocab", "steps", "batch_size",
            "lr", "muon_lr", "muon_decay", "embed_init", "warmup", "accumulate", "bf16", "compile",
            "smeared_keys", "seed", "tokenizer")  # fmt: skip
"Options that a recorded recipe answers."


def _as_it_was(options: dict[str, Any]) -> tuple["Recipe", dict[str, Any], float]:
    """The recipe, the config's fields and the share of repeats of a recorded run."""
    from dataclasses import asdict

    from analyses.cli.run_folder import recorded
    from circuits.io import folder_of
    from circuits.model import GPTConfig
    from circuits.training import Recipe

    usual = signature(train).parameters
    given = [name for name in RECORDED if options[name] != usual[name].default]
    if given:
        raise ValueError(f"--recipe says it already: leave out {given}")
    folder = folder_of(options["recipe"])
    if not (folder / "recipe.json").is_file():
        raise ValueError(f"{folder} holds no recipe.json")
    repeats = recorded(folder).get("repeats", options["repeats"])
    return (
        _made(Recipe.from_json, folder / "recipe.json"),
        asdict(_made(GPTConfig.from_json, folder / "config.json")),
        repeats,
    )


def _made(make: Callable[[str], Made], file: Path) -> Made:
    """What `make` makes of a file's text; ValueError names the file."""
    from circuits.files import read_text

    text = read_text(file, 2**20)
    try:
        return make(text)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{file}: {error}") from None


def usual_device(named: str) -> str:
    """The device named, or a GPU if there is one; under torchrun each process has its own.

    ValueError for one that is not there.
    """
    import torch

    device = named or ("cuda" if torch.cuda.is_available() else "cpu")
    if device == "cuda" and "LOCAL_RANK" in os.environ:
        device = f"cuda:{os.environ['LOCAL_RANK']}"
    if device == "cuda":
        device = f"cuda:{torch.cuda.current_device()}" if torch.cuda.is_available() else device
    try:
        torch.zeros(1, device=device).tolist()
    except Exception as error:  # each kind of device has its own
        first = str(error).split("\n")[0]
        raise ValueError(f"no device {device!r} can be used here, cpu can: {first}") from None
    if device.startswith("cuda"):
        torch.cuda.set_device(torch.device(device))
    return device
