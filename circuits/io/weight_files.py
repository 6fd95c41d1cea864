"""Tensors by name from a file of another program; a malicious file can do no harm.

A safetensors file is a header and numbers. A .pth file is a pickle in a zip file. With
`weights_only` torch runs no code of the pickle, but three dangers remain: compressed records, large
allocations (`bytearray`), and keys of a million nested tuples, whose hash crashes the process. The
file is checked for them first. torch.save writes none of the three.
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
_TUPLES = 20_000
"The largest number of tuples in a pickle, which bounds the depth of nesting. A tensor takes five."


def read_weights(file: Path) -> dict[str, Tensor]:
    """Tensors by name from a .safetensors file, or from a pickle of torch.save (.pth, .pt, .bin),
    without running code in it. ValueError for a file that is missing, damaged or of another kind.
    """
    if not file.is_file():
        raise ValueError(f"{file} is missing")
    if file.suffix == ".safetensors":
        try:
            return load_file(file)
        except Exception as error:  # SafetensorError, and errors of torch
            raise ValueError(f"{file} is not a whole safetensors file: {error}") from None
    try:
        _check_pth(file)
        weights = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # random bytes raise any kind of error
        first = str(error).strip().split("\n")[0]
        raise ValueError(
            f"{file} is no checkpoint of plain tensors, and nothing in it was run: "
            f"{type(error).__name__}: {first}"
        ) from None
    if not isinstance(weights, Mapping) or not all(
        isinstance(name, str) and isinstance(weight, Tensor) for name, weight in weights.items()
    ):
        raise ValueError(
            f"{file} holds {type(weights).__name__}, expected tensors by name{_inside(weights)}"
        )
    for name, weight in weights.items():
        if weight.numel() * weight.element_size() > file.stat().st_size:
            raise ValueError(f"{name} is {list(weight.shape)}, which is more than all of {file}")
    return dict(weights)


def _inside(held: Any) -> str:
    """A hint that names the part of a training checkpoint with tensors by name, if there is one."""
    parts = held.items() if isinstance(held, Mapping) else ()
    for name, part in parts:
        if isinstance(part, Mapping) and any(isinstance(w, Tensor) for w in part.values()):
            return (f": they seem to be in {name!r}, so give "
                    f"torch.load(file, weights_only=True)[{name!r}]")  # fmt: skip
    return ""


def _check_pth(file: Path) -> None:
    """ValueError unless the file is a zip file of torch.save (since 1.6): its records are not
    compressed, and its pickles pass `_check_pickle`."""
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
    """ValueError for a pickle that calls anything but torch or collections, or has too many
    tuples."""
    tuples = 0
    for code, given, _ in pickletools.genops(pickled):
        if "GLOBAL" in code.name and not _GLOBAL.fullmatch(str(given)):
            raise ValueError(f"{given or code.name} is nothing that puts tensors together")
        tuples += code.name.startswith("TUPLE")
        if tuples > _TUPLES:
            raise ValueError(f"there are more than {_TUPLES:,} tuples in it")
