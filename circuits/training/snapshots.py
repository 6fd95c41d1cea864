"""Snapshots of a run, from which it resumes bit for bit. A snapshot file is never incomplete.

One safetensors file holds the weights, the states of the optimizers and of the random generators,
and the losses so far. Its metadata hold, as JSON, the step, the records and the identity of the run
(recipe, config, data). The step determines the batch, so the position in the data needs no file.
"""

import json
import re
import warnings
import zlib
from collections.abc import Collection, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from circuits.files import alone, sweep, write
from circuits.training.sharded import distribute_like

Record = dict[str, int | float]
"The numbers of one step: step, tokens, seconds, loss (nats), and the results of `evaluate`."
Tensors = dict[str, Tensor]
_NAME = re.compile(r"step-\d{8,}\.safetensors")


@dataclass
class Progress:
    """The progress of a run so far."""

    step: int = 0
    "The number of finished steps."
    tokens: int = 0
    "The number of targets so far."
    seconds: float = 0.0
    losses: list[float] = field(default_factory=list)
    "The loss of every step, in nats."
    records: list[Record] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class Snapshots:
    """The folder of a run's snapshots, and how often to write one. A run resumes from the newest
    snapshot in the folder."""

    folder: Path | str
    every: int | None = None
    "The number of steps between two snapshots; None: Recipe.evaluate_every."
    keep: int = 2
    "The number of newest snapshots to keep."
    weights_at: Collection[int] = ()
    "Steps at which weights are also kept for good, in half precision: weights-STEP.safetensors."

    def __post_init__(self) -> None:
        object.__setattr__(self, "folder", Path(self.folder))
        for name, least in (("every", 1), ("keep", 2)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise ValueError(f"{name} must be at least {least}, got {value}")

    def lock(self) -> AbstractContextManager[Any]:
        """A context that locks the folder for this process; ValueError if another process has it
        locked."""
        return alone(Path(self.folder))

    def files(self) -> list[Path]:
        """The snapshot files in the folder, oldest first."""
        every = Path(self.folder).glob("step-*.safetensors")
        return sorted(file for file in every if _NAME.fullmatch(file.name))

    def write(self, tensors: Tensors, progress: Progress, identity: dict[str, Any]) -> None:
        """Write a snapshot, then remove all but the newest `keep`.

        ValueError if a number is not finite, OSError if the file cannot be written. In both cases
        earlier snapshots stay.
        """
        losses = torch.tensor(progress.losses, dtype=torch.float64)
        tensors = {name: t.detach().cpu().contiguous() for name, t in tensors.items()}
        tensors["losses"] = losses
        bad = [name for name, t in tensors.items() if t.is_floating_point() and not _finite(t)]
        if bad:
            raise ValueError(f"{bad[0]} is not finite after step {progress.step}")
        about = {
            "step": progress.step,
            "tokens": progress.tokens,
            "seconds": progress.seconds,
            "records": progress.records,
            "identity": identity,
            "checksum": _checksum(tensors),
        }
        sweep(Path(self.folder))
        _write(Path(self.folder) / f"step-{progress.step:08d}.safetensors", tensors, about)
        self._discard(self.files()[: -self.keep])

    def write_weights(self, weights: Tensors, step: int) -> None:
        """Write weights-STEP.safetensors, in half precision."""
        half = {name: w.detach().cpu().half().contiguous() for name, w in weights.items()}
        _write(Path(self.folder) / f"weights-{step:08d}.safetensors", half, {"step": step})

    def newest(self, identity: dict[str, Any]) -> tuple[Tensors, Progress] | None:
        """The tensors and the progress of the newest undamaged snapshot; None without snapshots.

        A damaged snapshot is skipped, and a warning names it. ValueError if all are damaged, or if
        recipe, config or data differ from the snapshot's.
        """
        unreadable = []
        for file in reversed(self.files()):
            try:
                tensors, about = _read(file)
            except (SafetensorError, OSError, ValueError, KeyError) as error:
                unreadable.append(f"{file.name} ({error})")
                continue
            _check_same(about["identity"], identity, Path(self.folder))
            if unreadable:
                words = f"{', '.join(unreadable)} in {self.folder} cannot be read: resuming from"
                warnings.warn(f"{words} step {about['step']}", stacklevel=2)
            losses = tensors.pop("losses").tolist()
            counts = (about["step"], about["tokens"], about["seconds"])
            return tensors, Progress(*counts, losses, about["records"])
        if unreadable:
            raise ValueError(
                f"no snapshot in {self.folder} can be read: {', '.join(unreadable)}; "
                f"restore one from a copy, or move the folder away to start a new run"
            )
        return None

    def last(self) -> str:
        """A sentence that says where the last snapshot is, for errors."""
        files = self.files()
        return f"the last good snapshot is {files[-1]}" if files else "there is no snapshot yet"

    def _discard(self, files: Any) -> None:
        for file in files:
            with suppress(OSError):
                file.unlink()


def state(model: nn.Module, opts: Sequence[torch.optim.Optimizer]) -> Tensors:
    """The tensors of a run by name: weights, optimizer states, states of the random generators."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    tensors = {f"model/{name}": weight for name, weight in model.state_dict().items()}
    for opt in opts:
        for parameter, values in opt.state.items():
            for key, value in values.items():
                tensors[f"optimizer/{names[id(parameter)]}/{key}"] = value
    tensors["rng/cpu"] = torch.get_rng_state()
    for device in {p.device for p in model.parameters() if p.is_cuda}:
        tensors["rng/cuda"] = torch.cuda.get_rng_state(device)
    return tensors


@torch.no_grad()
def restore(tensors: Tensors, model: nn.Module, opts: Sequence[torch.optim.Optimizer]) -> None:
    """Load the tensors of `state` into model, optimizers and torch's random generators. Optimizer
    states get the memory layout of their parameter."""
    own = model.state_dict()
    model.load_state_dict(
        {name: distribute_like(tensors[f"model/{name}"], own[name]) for name in own}
    )
    parameters = dict(model.named_parameters())
    owners = {id(p): opt for opt in opts for group in opt.param_groups for p in group["params"]}
    for full_name, value in tensors.items():
        if full_name.startswith("optimizer/"):
            _, name, key = full_name.split("/")
            parameter = parameters[name]
            if value.shape == parameter.shape:  # strides change the order of sums
                empty = torch.empty_like(parameter, dtype=value.dtype)
                value = empty.copy_(distribute_like(value, empty))
            owners[id(parameter)].state[parameter][key] = value
    torch.set_rng_state(tensors["rng/cpu"])
    if "rng/cuda" in tensors and torch.cuda.is_available():
        torch.cuda.set_rng_state(tensors["rng/cuda"])


def _write(file: Path, tensors: Tensors, about: dict[str, Any]) -> None:
    write(file, save(tensors, metadata={"about": json.dumps(about)}))


def _read(file: Path) -> tuple[Tensors, dict[str, Any]]:
    with safe_open(file, "pt") as opened:
        about = json.loads((opened.metadata() or {})["about"])
        tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
    if _checksum(tensors) != about["checksum"]:
        raise ValueError("its checksum is wrong")
    return tensors, about


def _checksum(tensors: Tensors) -> int:
    total = 0
    for name in sorted(tensors):
        total = zlib.crc32(tensors[name].reshape(-1).view(torch.uint8).numpy().data, total)
    return total


def _finite(tensor: Tensor) -> bool:
    return bool(tensor.isfinite().all())


def _check_same(was: dict[str, Any], now: dict[str, Any], folder: Path) -> None:
    """ValueError names each field that has changed. A field that did not exist when the snapshot
    was written counts as None or False: as the part that it now turns on was absent then."""
    changed = []
    for part, fields in now.items():
        for name in sorted(was[part].keys() | fields.keys()):
            before, after = was[part].get(name), fields.get(name)
            new_and_off = name not in was[part] and after in (None, False)
            if before != after and not new_and_off:
                changed.append(f"{part}: {name} was {before!r} and is {after!r} now")
    if changed:
        raise ValueError(
            f"the run in {folder} is another one: {'; '.join(changed)}. Give the same recipe, "
            f"config and data, or choose another folder"
        )
