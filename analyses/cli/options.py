"""The options of `circuits train`, on the command line or as lines of a TOML file.

Each field is an option with its default and its help. A line `d-head = 32` of a TOML file means the
same as `--d-head 32`. The command line overrides the file.
"""

import difflib
import json
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from inspect import Parameter, Signature
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, get_args, get_origin

import typer


@dataclass(frozen=True, kw_only=True)
class Options:
    """The options of a training run. None means that the option is not given."""

    out: Annotated[Path | None, "the model's folder; an interrupted run there resumes"] = None
    data: Annotated[list[Path] | None, "text file, folder or glob; repeat for several"] = None
    dataset: Annotated[str | None, "or a Hugging Face dataset, streamed"] = None
    documents: Annotated[int | None, "the largest number of documents"] = None
    held_out: Annotated[list[Path] | None, "text to measure on; else every 50th document"] = None
    repeated_tokens: Annotated[bool, "train on BOS + R + R instead of on text"] = False
    recipe: Annotated[
        str | None, "train as this model was trained: its config, recipe and tokenizer"
    ] = None
    layers: int = 2
    heads: int = 8
    d_head: int = 32
    width: Annotated[int, "d_model; 0: heads * d-head"] = 0
    mlp: Annotated[int, "neurons of each MLP; 0: attention-only"] = 0
    context: Annotated[int, "tokens per window, n_ctx"] = 256
    vocab: Annotated[int, "size of the byte-pair vocabulary"] = 2048
    tokenizer: Annotated[str | None, "a model whose tokenizer is used"] = None
    steps: int = 4000
    batch_size: Annotated[int, "rows per step, of all processes"] = 16
    lr: float = 2e-3
    muon_lr: float = 0.01
    muon_decay: Annotated[float, "weight decay of W_V, W_O and W_out"] = 0.1
    embed_init: Annotated[
        float, "standard deviation of W_E at first; 0: the deviation of all weights"
    ] = 0.3
    warmup: Annotated[int, "steps"] = 100
    accumulate: Annotated[int, "micro-batches per step"] = 1
    bf16: Annotated[bool, "bfloat16, for a GPU"] = False
    compile: Annotated[bool, "torch.compile, for long runs"] = False
    repeats: Annotated[float, "share of windows that repeat a passage"] = 0.0
    every: Annotated[int, "steps between records, and between snapshots"] = 250
    until: Annotated[int | None, "stop after this step, to resume later"] = None
    examples: Annotated[
        int, "rows that the history is measured on, which takes time; 0: no history"
    ] = 128
    keep_weights: Annotated[bool, "keep the weights of every step of the history"] = False
    cache: Annotated[Path | None, "keep tokenised text here"] = None
    device: Annotated[str | None, "cpu, cuda; else a GPU if there is one"] = None
    shard: Annotated[bool, "share out the weights (FSDP2), under torchrun"] = False
    smeared_keys: Annotated[bool, "mix each key with the key before it"] = False
    seed: int = 0


RECORDED = ("layers", "heads", "d_head", "width", "mlp", "context", "vocab", "steps", "batch_size",
            "lr", "muon_lr", "muon_decay", "embed_init", "warmup", "accumulate", "bf16", "compile",
            "smeared_keys", "seed", "tokenizer")  # fmt: skip
"Options whose values come from the model of `recipe`."
_PASSING = ("until", "device")
"Options that run.toml leaves out, because they may differ at each start of a run."


def read(file: Path) -> dict[str, Any]:
    """The options in a TOML file. ValueError names a line with an unknown option (and lists the
    options), or with a value of another type."""
    from circuits.files import read_text

    known = {one.name: one for one in fields(Options)}
    try:
        given = tomllib.loads(read_text(file, 2**20))
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"{file} is no TOML: {error}") from None
    found = {}
    for line, value in given.items():
        name = line.replace("-", "_")
        if name in found:
            raise ValueError(f"{file}: {line} is given twice")
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            hint = f"did you mean {_dashed(near[0])!r}? " if near else ""
            raise ValueError(f"{file}: no option is called {line!r}; {hint}The options are "
                             f"{[_dashed(name) for name in known]}")  # fmt: skip
        try:
            found[name] = _typed(value, known[name].type)
        except ValueError as error:
            raise ValueError(f"{file}: {line} must be {error}, got {value!r}") from None
    return found


def to_toml(options: Options) -> str:
    """The options as the text of a TOML file, which `read` can read."""
    left_out = {*_PASSING, *(RECORDED if options.recipe else ())}
    lines = []
    for one in fields(options):
        value = getattr(options, one.name)
        if value is not None and one.name not in left_out:
            lines.append(f"{_dashed(one.name)} = {_quoted(value)}")
    return "\n".join(lines) + "\n"


def command(train: Callable[..., None]) -> Callable[..., None]:
    """The function train(file, **given) as a command with an option for each field. An option that
    is not given is None."""

    def wrapped(file: Any, **given: Any) -> None:
        train(file, **given)

    words = "a TOML file of options, run.toml of a run's folder for example"
    argument = Annotated[Path | None, typer.Argument(help=words)]
    parameters = [Parameter("file", Parameter.POSITIONAL_OR_KEYWORD, annotation=argument,
                            default=None)]  # fmt: skip
    for one in fields(Options):
        kind, help = _parts(one.type)
        shown = str(one.default) if one.default else False
        option = typer.Option(help=help, show_default=shown)
        kind = kind if isinstance(kind, UnionType) else kind | None
        parameters.append(Parameter(one.name, Parameter.KEYWORD_ONLY, default=None,
                                    annotation=Annotated[kind, option]))  # fmt: skip
    wrapped.__signature__ = Signature(parameters, return_annotation=None)  # type: ignore[attr-defined]
    for name in ("__doc__", "__name__", "__module__"):
        setattr(wrapped, name, getattr(train, name))
    wrapped.__annotations__ = {}
    return wrapped


def together(in_file: Mapping[str, Any], given: Mapping[str, Any]) -> tuple[Options, set[str]]:
    """The options of a file and of the command line, which overrides the file, and the names of the
    given options."""
    said = {**in_file, **{name: value for name, value in given.items() if value not in (None, [])}}
    return Options(**said), set(said)


def _parts(kind: Any) -> tuple[Any, Any]:
    """The type of a field, and its help or None."""
    return get_args(kind)[:2] if get_origin(kind) is Annotated else (kind, None)


def _dashed(name: str) -> str:
    return name.replace("_", "-")


def _typed(value: Any, kind: Any) -> Any:
    """The value as the type of a field; ValueError with the name of the type."""
    kind = _parts(kind)[0]
    kind = get_args(kind)[0] if isinstance(kind, UnionType) else kind
    if kind in (bool, int, str):
        if type(value) is not kind:
            raise ValueError({bool: "true or false", int: "a whole number", str: "text"}[kind])
        return value
    if kind is float:
        if type(value) not in (int, float):
            raise ValueError("a number")
        return float(value)
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise ValueError("a path" if kind is Path else "a path, or a list of paths")
    if kind is Path:
        if len(texts) != 1:
            raise ValueError("a path")
        return Path(texts[0])
    return [Path(text) for text in texts]


def _quoted(value: Any) -> str:
    """A value in TOML; texts, numbers and booleans look the same in JSON."""
    if isinstance(value, list):
        return "[" + ", ".join(map(_quoted, value)) + "]"
    if isinstance(value, Path):  # TOML cannot hold bytes that are not UTF-8
        value = str(value).encode(errors="replace").decode()
    return json.dumps(value, ensure_ascii=False)
