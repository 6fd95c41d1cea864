"""Loading and saving of models: models that ship, model folders, models on the Hub.

A model folder holds config.json, model.safetensors and, if the model has a tokenizer,
tokenizer.json. A tokenizer_config.json names a BOS or EOS that is not <|endoftext|>. The folder of
a model that ships also holds a model card (README.md), and the recipe and log of its training.
Models that ship share their tokenizers, one for each size of vocabulary.
"""

import difflib
import json
import os
import re
from dataclasses import asdict
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save as as_bytes
from torch import Tensor

from circuits.files import in_words, read_text, sweep, workshop, write
from circuits.io import bridge
from circuits.io.checkpoints import build, check_fits, check_weights
from circuits.io.tokenizer_files import read_tokenizer, write_tokenizer
from circuits.model import GPT, GPTConfig, process_weights

HUB = {
    "gpt2": "openai-community/gpt2",
    "gpt2-small": "openai-community/gpt2",
    "gpt2-medium": "openai-community/gpt2-medium",
    "gpt2-large": "openai-community/gpt2-large",
    "gpt2-xl": "openai-community/gpt2-xl",
    "distilgpt2": "distilbert/distilgpt2",
    **{f"pythia-{size}": f"EleutherAI/pythia-{size}"
       for size in ("14m", "31m", "70m", "160m", "410m", "1b", "1.4b")},
    "gpt-j-6b": "EleutherAI/gpt-j-6b",
}  # fmt: skip
"Short names of models on the Hugging Face Hub; `load` also takes a full name, owner/model."
BESIDE = ("bos", "trained_ctx")
"Values of a model that config.json also holds if they differ from their default."


def models() -> list[str]:
    """The names of the models that ship with the package, for `load`."""
    return sorted(path.parent.name for path in _zoo().glob("*/config.json"))


def folder_of(name: str | Path) -> Path:
    """The folder of a model that ships, or the model folder at a path; else KeyError with a list
    of the models."""
    for folder in (_zoo() / str(name), Path(name)):
        if (folder / "config.json").is_file():
            return folder
    near = difflib.get_close_matches(str(name), [*models(), *HUB], 1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    raise KeyError(
        f"no model {str(name)!r}: {hint}{models()} ship, {list(HUB)} are fetched from the Hub, "
        f"and a folder must hold config.json and model.safetensors"
    )


def load(
    name: str | Path,
    *,
    revision: str | None = None,
    dtype: torch.dtype = torch.float32,
    fold_ln: bool = False,
    center_writing_weights: bool = False,
    center_unembed: bool = False,
    fold_value_biases: bool = False,
) -> GPT:
    """A model that ships, by name; a model from a folder that `save` wrote; or a model of the
    Hugging Face Hub, by its short name in `HUB` or as owner/model, which is downloaded. In eval
    mode, on CPU. `revision` is a version of a model of the Hub: Pythia's step of training is
    revision="step1000".

    By default the weights are as trained. The flags simplify them and keep the log-probabilities,
    see `process_weights`; TransformerLens sets all of them. ValueError, with the reason, for a flag
    that this model does not allow.

    KeyError for an unknown name. ValueError for a checkpoint that does not fit its config (it names
    the tensor and both shapes), for a number that is not finite, for a model that a GPT cannot
    express, and for a revision of a model that is not on the Hub. OSError if the Hub cannot be
    reached.
    """
    model = _as_trained(name, dtype, revision)
    steps = {"fold_ln": fold_ln, "center_writing_weights": center_writing_weights,
             "center_unembed": center_unembed, "fold_value_biases": fold_value_biases}  # fmt: skip
    return process_weights(model, **steps) if any(steps.values()) else model


def _as_trained(name: str | Path, dtype: torch.dtype, revision: str | None) -> GPT:
    on_hub = _name_on_hub(name)
    if on_hub is not None:
        return _fetched(str(name), on_hub, dtype, revision)
    if revision is not None:
        raise ValueError(f"revision={revision!r} is a version on the Hugging Face Hub, and "
                         f"{str(name)!r} does not come from there")  # fmt: skip
    folder = folder_of(name)
    cfg, beside = _read(folder / "config.json")
    text = tokenizer_file(folder)
    vocabulary = read_tokenizer(text) if text else None
    model = build(cfg, folder / "model.safetensors", vocabulary, dtype)
    try:
        for field, value in beside.items():
            setattr(model, field, value)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{folder / 'config.json'}: {error}") from None
    return model


def tokenizer_file(folder: Path) -> Path | None:
    """The tokenizer.json in a model folder. For a model that ships, else the tokenizer of its
    vocabulary's size that ships; None for a model that reads no text."""
    own = folder / "tokenizer.json"
    if os.path.lexists(own):
        return own
    if folder.resolve().parent != _zoo().resolve():
        return None
    shared = _zoo() / f"tokenizer-{saved_config(folder).d_vocab}.json"
    return shared if shared.is_file() else None


def saved_config(folder: Path) -> GPTConfig:
    """The config in a model folder; ValueError names a damaged file."""
    return _read(folder / "config.json")[0]


def _read(file: Path) -> tuple[GPTConfig, dict[str, Any]]:
    """The config in a file, and the values in the file with names in BESIDE."""
    said = read_text(file, 2**20)
    try:
        fields = json.loads(said)
        beside = {name: fields.pop(name) for name in BESIDE if name in fields}
        return GPTConfig(**fields), beside
    except (ValueError, TypeError, RecursionError) as error:
        raise ValueError(f"{file}: {error}") from None


def save(
    model: GPT, folder: Path | str, *, overwrite: bool = False, dtype: torch.dtype = torch.float32
) -> None:
    """Write config.json, model.safetensors (in `dtype`) and tokenizer.json to a folder. config.json
    also holds `bos` and `trained_ctx` if they differ from their default.

    ValueError if the folder holds a model and `overwrite` is False, and for a model that `load`
    would refuse, for example a weight that is not finite in `dtype`: the old files then stay. Each
    file is written under a temporary name and renamed, so no file is ever incomplete.
    """
    folder = Path(folder)
    if (folder / "config.json").exists() and not overwrite:
        raise ValueError(f"{folder} already holds a model; pass overwrite=True to replace it")
    own = model.state_dict()
    weights = {name: w.detach().to("cpu", dtype).contiguous() for name, w in own.items()}
    sweep(folder)
    with in_words(folder), workshop(folder / "model") as staging:
        write(staging / "config.json", _config_json(model))
        if model.tokenizer is not None:
            write_tokenizer(model.tokenizer, staging / "tokenizer.json")
        _check_loads(model, weights, staging, folder)
        write(staging / "model.safetensors", as_bytes(weights))
        os.replace(staging / "model.safetensors", folder / "model.safetensors")
        for name in ("tokenizer.json", "tokenizer_config.json"):
            if not (staging / name).exists():
                (folder / name).unlink(missing_ok=True)
        for file in sorted(staging.iterdir(), reverse=True):  # config.json last
            os.replace(file, folder / file.name)


def _config_json(model: GPT) -> str:
    """The config as JSON, with bos and trained_ctx if they differ from their default."""
    words = model.tokenizer
    usual = {"bos": 0 if words is None else words.bos, "trained_ctx": model.cfg.n_ctx}
    own = {name: getattr(model, name) for name in BESIDE if getattr(model, name) != usual[name]}
    return json.dumps({**asdict(model.cfg), **own}, indent=2) + "\n"


def _check_loads(model: GPT, weights: dict[str, Tensor], staging: Path, folder: Path) -> None:
    """ValueError for a model that `load` would refuse, before the folder is touched."""
    try:
        cfg = saved_config(staging)
        text = staging / "tokenizer.json"
        check_fits(cfg, weights, read_tokenizer(text) if text.is_file() else None)
        check_weights(cfg, weights, model.state_dict())
    except (ValueError, TypeError) as error:
        raise ValueError(
            f"nothing was saved to {folder}, for load would refuse it: {error}"
        ) from None


def _zoo() -> Path:
    return Path(str(resources.files("circuits"))) / "zoo"


def _name_on_hub(name: str | Path) -> str | None:
    """The owner/model of a model on the Hub; None for a model that ships, a folder, and a name that
    is none."""
    if Path(name).exists() or isinstance(name, Path):
        return None
    return HUB.get(name) or (name if re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", name) else None)


def _fetched(name: str, on_hub: str, dtype: torch.dtype, revision: str | None) -> GPT:
    try:
        return bridge.from_hub(on_hub, dtype=dtype, revision=revision)
    except OSError as error:
        raise OSError(
            f"{name!r} needs config, weights and tokenizer of {on_hub} from the Hugging Face "
            f"Hub, and they could not be fetched; {models()} ship and need no network"
        ) from error
