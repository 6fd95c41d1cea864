"""Tensors by name from a file that others wrote, read so that nothing in it can do harm.

A safetensors file is a header and numbers. A .pth file is a pickle in a zip file: torch runs no
code of it with `weights_only`, but it unpacks what is compressed, allocates what it is told to
(`bytearray`), and hashes what it is given, where a key of tuples within tuples, a million deep,
ends the process. So it is looked through first: tensors as torch.save writes them need none of it.
"""

import pickletools
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

_GLOBAL = re.compile(r"(torch[\w.]*|collections) \w+")
_DEEPEST = 100


def read_weights(file: Path) -> dict[str, Tensor]:
    """Tensors by name from a .safetensors file, or from a pickle (.pth, .pt, .bin) as torch.save
    writes it, which runs nothing; ValueError for a file that is missing, damaged or something else.
    """
    if not file.is_file():
        raise ValueError(f"{file} is missing")
    if file.suffix == ".safetensors":
        try:
            return load_file(file)
        except Exception as error:  # SafetensorError, and what torch says to its types and sizes
            raise ValueError(f"{file} is not a whole safetensors file: {error}") from None
    try:
        _check_pth(file)
        weights = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # what unpickling random bytes raises has no end
        first = str(error).strip().split("\n")[0]
        raise ValueError(
            f"{file} is no checkpoint of plain tensors, and nothing in it was run: "
            f"{type(error).__name__}: {first}"
        ) from None
    if not isinstance(weights, Mapping) or not all(
        isinstance(name, str) and isinstance(weight, Tensor) for name, weight in weights.items()
    ):
        raise ValueError(
            f"{file} holds {type(weights).__name__}, wanted tensors by name{_inside(weights)}"
        )
    for name, weight in weights.items():
        if weight.numel() * weight.element_size() > file.stat().st_size:
            raise ValueError(f"{name} is {list(weight.shape)}, which is more than all of {file}")
    return dict(weights)


def _inside(held: Any) -> str:
    """Where in a checkpoint of a training the tensors by name are, if they are there."""
    parts = held.items() if isinstance(held, Mapping) else ()
    for name, part in parts:
        if isinstance(part, Mapping) and any(isinstance(w, Tensor) for w in part.values()):
            return (f": they seem to be in {name!r}, so give "
                    f"torch.load(file, weights_only=True)[{name!r}]")  # fmt: skip
    return ""


def _check_pth(file: Path) -> None:
    """ValueError unless a file is a zip file as torch.save writes it (since 1.6): nothing in it
    compressed, nothing called but what puts tensors together, no tuples nested without end."""
    with zipfile.ZipFile(file) as archive, file.open("rb") as opened:
        records = archive.infolist()
        size, unpacked = file.stat().st_size, sum(record.file_size for record in records)
        if opened.read(4) != b"PK\x03\x04":
            raise ValueError("it does not begin as a zip file")
        if unpacked > size or any(record.compress_type for record in records):
            raise ValueError(f"{unpacked} bytes are packed into {size}, and torch.save packs none")
        for record in records:
            if record.filename.lower().endswith(".pkl"):
                _check_pickle(archive.read(record))


def _check_pickle(pickled: bytes) -> None:
    """Follows the stack of a pickle, of which only the depths of tuples are of interest."""
    stack: list[int | None] = []  # None is a mark
    memo: dict[int, int | None] = {}
    for code, given, _ in pickletools.genops(pickled):
        if "GLOBAL" in code.name and not _GLOBAL.fullmatch(str(given)):
            raise ValueError(f"{given or code.name} is nothing that puts tensors together")
        if "PUT" in code.name:
            memo[int(str(given))] = stack[-1]
            continue
        depth = max(_taken(stack, code), default=0) + code.name.startswith("TUPLE")
        if "GET" in code.name:
            depth = memo.get(int(str(given))) or 0
        if depth > _DEEPEST:
            raise ValueError(f"there are tuples in it nested more than {_DEEPEST} deep")
        stack += [None if kind is pickletools.markobject else depth for kind in code.stack_after]


def _taken(stack: list[int | None], code: pickletools.OpcodeInfo) -> list[int]:
    """What an operation takes off the stack, down to the last mark if it takes all from there."""
    kinds, taken = code.stack_before, []
    if pickletools.markobject in kinds:
        while (top := stack.pop()) is not None:
            taken.append(top)
        kinds = kinds[: kinds.index(pickletools.markobject)]
    return taken + [stack.pop() or 0 for _ in kinds]
