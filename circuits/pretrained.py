"""load(name or folder), save(model, folder), and the models that ship with the package.

A model folder holds config.json, model.safetensors, tokenizer.json where it reads text, and for
those that ship a card (README.md), the recipe and the log of its training.
"""

import difflib
import os
import tempfile
from importlib import resources
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer

from circuits.config import GPTConfig
from circuits.model import GPT
from circuits.tokens import Vocabulary


def models() -> list[str]:
    """Names of the models that ship with the package, for `load`."""
    return sorted(path.parent.name for path in _zoo().glob("*/config.json"))


def folder_of(name: str | Path) -> Path:
    """The folder of a model that ships, or a path to one; KeyError with what exists if neither."""
    for folder in (_zoo() / str(name), Path(name)):
        if (folder / "config.json").is_file():
            return folder
    near = difflib.get_close_matches(str(name), models(), 1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    raise KeyError(
        f"no model {str(name)!r}: {hint}{models()} ship, "
        f"and a folder must hold config.json and model.safetensors"
    )


def load(name: str | Path, *, dtype: torch.dtype = torch.float32) -> GPT:
    """A model that ships, by name, or one from a folder that `save` wrote; in eval mode, on CPU.

    Nothing is downloaded. KeyError for an unknown name; ValueError for a checkpoint that does not
    fit its config, naming the tensor and both shapes, or that holds a number that is not finite.
    """
    folder = folder_of(name)
    try:
        cfg = GPTConfig.from_json((folder / "config.json").read_text())
    except (ValueError, TypeError) as error:
        raise ValueError(f"{folder / 'config.json'}: {error}") from None
    vocabulary = None
    if (folder / "tokenizer.json").is_file():
        vocabulary = Vocabulary(Tokenizer.from_file(str(folder / "tokenizer.json")))
    model = GPT(cfg, vocabulary)
    load_weights(model, _weights(folder / "model.safetensors"))
    return model.to(dtype).eval()


def load_weights(model: GPT, weights: dict[str, torch.Tensor]) -> None:
    """Copy weights by name into the model, every one of them or ValueError.

    TransformerLens's mask buffers in a HookedTransformer state dict are passed over.
    """
    weights = {k: v for k, v in weights.items() if not k.endswith((".attn.mask", ".attn.IGNORE"))}
    own = model.state_dict()
    missing, unknown = own.keys() - weights.keys(), weights.keys() - own.keys()
    if missing or unknown:
        raise ValueError(
            f"the checkpoint does not fit the config: it lacks {sorted(missing)} "
            f"and the model has no {sorted(unknown)}"
        )
    for name, weight in weights.items():
        if weight.shape != own[name].shape:
            raise ValueError(
                f"{name} is {list(weight.shape)} in the checkpoint, "
                f"and {list(own[name].shape)} by the config"
            )
        if not weight.isfinite().all():
            raise ValueError(f"{name} in the checkpoint holds a number that is not finite")
    model.load_state_dict(weights)


def save(
    model: GPT, folder: Path | str, *, overwrite: bool = False, dtype: torch.dtype = torch.float32
) -> None:
    """Write config.json, model.safetensors (in `dtype`) and tokenizer.json to a folder.

    ValueError if the folder holds a model and `overwrite` is False. Each file is written under a
    temporary name and moved, so that none is ever half there.
    """
    folder = Path(folder)
    if (folder / "config.json").exists() and not overwrite:
        raise ValueError(f"{folder} already holds a model; pass overwrite=True to replace it")
    folder.mkdir(parents=True, exist_ok=True)
    weights = {
        name: w.detach().to("cpu", dtype).contiguous() for name, w in model.state_dict().items()
    }
    with tempfile.TemporaryDirectory(dir=folder, prefix=".saving-") as staging:
        (Path(staging) / "config.json").write_text(model.cfg.to_json())
        save_file(weights, Path(staging) / "model.safetensors")  # which makes it private
        os.chmod(
            Path(staging) / "model.safetensors", (Path(staging) / "config.json").stat().st_mode
        )
        if model.tokenizer is not None:
            model.tokenizer.tokenizer.save(str(Path(staging) / "tokenizer.json"))
        for file in sorted(Path(staging).iterdir(), reverse=True):  # config.json last
            os.replace(file, folder / file.name)


def _zoo() -> Path:
    return Path(str(resources.files("circuits"))) / "zoo"


def _weights(file: Path) -> dict[str, torch.Tensor]:
    if not file.is_file():
        raise ValueError(f"{file} is missing")
    try:
        return {name: weight.float() for name, weight in load_file(file).items()}
    except SafetensorError as error:
        raise ValueError(f"{file} is not a whole safetensors file: {error}") from None
