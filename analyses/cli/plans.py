"""A plan: the config, the recipe and the text of a training run, from its options.

The architecture is the framework paper's at small scale: attention-only, layer norm at every read,
untied embeddings, sinusoids on the inputs of W_Q and W_K only. On text the amplitude and the base
of the sinusoids are chosen so that previous-token heads form in layer 0 of a small model.
"""

import os
from collections.abc import Collection
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from analyses.cli.corpus import Corpus
from analyses.cli.options import RECORDED, Options
from analyses.cli.run_folder import read_record
from circuits.files import read_text
from circuits.io import folder_of, saved_config, tokenizer_file
from circuits.training import Recipe

POSITIONS = {
    "positional_embedding_type": "shortformer_sinusoidal",
    "sinusoid_base": 100.0,
    "sinusoid_scale": 3.0,
}


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The parts of a run. A run can resume only with the same shape, recipe, corpus, tokenizer and
    number of examples; the other options may change."""

    options: Options
    out: Path
    shape: dict[str, Any]
    "The fields of the config. A tokenizer trained on little text may be smaller than d_vocab."
    recipe: Recipe
    corpus: Corpus | None
    "None for training on repeated random tokens."
    tokenizer: Path | None
    "A tokenizer.json to use instead of training one."
    like: Path | None
    "The folder of the recorded run, to compare the first losses."
    device: str


def plan(options: Options, given: Collection[str]) -> Plan:
    """The plan of these options. `given` names the options that are not defaults. ValueError for a
    given option whose value comes from --recipe."""
    like = folder_of(options.recipe) if options.recipe else None
    source = folder_of(options.tokenizer) if options.tokenizer else like
    words = tokenizer_file(source) if source else None
    if options.tokenizer and words is None:
        raise ValueError(f"--tokenizer {options.tokenizer}: that model has no tokenizer")
    repeats = options.repeats
    if like is None:
        shape, recipe = _shape(options), _recipe(options)
    else:
        if twice := [name for name in RECORDED if name in given]:
            raise ValueError(f"--recipe already sets these options: leave out {twice}")
        shape, recipe, repeats = _as_recorded(like, repeats)
        recipe = replace(recipe, evaluate_every=options.every) if "every" in given else recipe
    corpus = None
    if not options.repeated_tokens:
        corpus = Corpus(
            data=options.data or [], dataset=options.dataset, documents=options.documents,
            held_out=options.held_out or [], repeats=repeats,
        )  # fmt: skip
    return Plan(
        options=options,
        out=options.out or Path("."),
        shape=shape,
        recipe=recipe,
        corpus=corpus,
        tokenizer=words if corpus else None,
        like=like,
        device=usual_device(options.device or ""),
    )


def _shape(options: Options) -> dict[str, Any]:
    named = {
        "n_layers": options.layers, "n_heads": options.heads, "d_head": options.d_head,
        "d_model": options.width or options.heads * options.d_head, "n_ctx": options.context,
        "d_vocab": options.vocab, "smeared_keys": options.smeared_keys, "seed": options.seed,
        "positional_embedding_type": POSITIONS["positional_embedding_type"],
    }  # fmt: skip
    if not options.repeated_tokens:
        named |= POSITIONS
    if options.mlp:
        named |= {"d_mlp": options.mlp, "act_fn": "gelu"}
    if options.embed_init:
        named |= {"embed_init_range": options.embed_init}
    return named


def _recipe(options: Options) -> Recipe:
    same = ("steps", "batch_size", "lr", "muon_lr", "muon_decay", "warmup", "accumulate", "bf16",
            "compile")  # fmt: skip
    named = {name: getattr(options, name) for name in same}
    return Recipe(**named, evaluate_every=options.every)


def _as_recorded(folder: Path, repeats: float) -> tuple[dict[str, Any], Recipe, float]:
    """The fields of the config, the recipe and the share of repeats of a recorded run."""
    if not (folder / "recipe.json").is_file():
        raise ValueError(f"{folder} holds no recipe.json")
    repeats = read_record(folder).get("repeats", repeats)
    text = read_text(folder / "recipe.json", 2**20)
    try:
        recipe = Recipe.from_json(text)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{folder / 'recipe.json'}: {error}") from None
    return asdict(saved_config(folder)), recipe, repeats


def usual_device(named: str) -> str:
    """The named device; without a name a GPU if there is one, else the CPU. Under torchrun each
    process has its own GPU. ValueError for a device that cannot be used.
    """
    device = named or ("cuda" if torch.cuda.is_available() else "cpu")
    if device == "cuda" and "LOCAL_RANK" in os.environ:
        device = f"cuda:{os.environ['LOCAL_RANK']}"
    if device == "cuda":
        device = f"cuda:{torch.cuda.current_device()}" if torch.cuda.is_available() else device
    try:
        torch.zeros(1, device=device).tolist()
    except Exception as error:  # the type of the error depends on the device
        first = str(error).split("\n")[0]
        raise ValueError(f"no device {device!r} can be used here, cpu can: {first}") from None
    if device.startswith("cuda"):
        torch.cuda.set_device(torch.device(device))
    return device
