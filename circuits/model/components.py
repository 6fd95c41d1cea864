"""The components of a model by name, and the hook points where they write and read.

Writers: `embed`, `pos`, heads as `L0H1`, the attention of a layer as `L0 attn`, MLPs as `MLP0` and
neurons as `MLP0N17`. Readers: the inputs of a head as `L0H1.Q`, `.K` and `.V`, MLPs, and `logits`.
A head is named by its label or by (layer, head), both counted from 0. Only this module maps names
to hook points.
"""

import operator
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

from circuits.model.config import GPTConfig


class Head(NamedTuple):
    """A head by layer and number, both counted from 0; its text is L1H4."""

    layer: int
    head: int

    def __str__(self) -> str:
        return f"L{self.layer}H{self.head}"


class Writer(NamedTuple):
    """The hook point where a component writes, by short name and layer, with the number of the head
    or neuron."""

    name: str
    point: str
    layer: int | None = None
    head: int | None = None
    neuron: int | None = None

    @property
    def key(self) -> str | tuple[str, int]:
        """The key of the hook point in a cache: ("z", 1)."""
        return self.point if self.layer is None else (self.point, self.layer)

    @property
    def adds_at(self) -> str:
        """The full name of the hook point whose activation is added to the residual stream."""
        added = {"z": "attn_out", "post": "mlp_out"}.get(self.point, self.point)
        return f"hook_{added}" if self.layer is None else f"blocks.{self.layer}.hook_{added}"


class Reader(NamedTuple):
    """The hook point where a component reads the residual stream, by full name. A head also has its
    number and, in `what`, Q, K or V."""

    name: str
    point: str
    "The hook point of the input: [batch pos d_model], or [batch pos head d_model] for a head."
    read_point: str
    "The hook point of the head's q, k or v; for other readers the same as `point`."
    layer: int
    head: int | None = None
    what: str | None = None


AnyHead = Head | tuple[int, int] | str
"A head in any form: Head(1, 4), (1, 4) or 'L1H4'."


@dataclass(frozen=True)
class Path:
    """A path through the model, from a writer through heads to a reader. Its text is
    'embed > L0H1 > L1H0 > logits'. An edge is a path without heads between: 'L0H1 > L1H0.K'."""

    start: str
    heads: tuple[Head, ...] = ()
    end: str = "logits"

    @property
    def order(self) -> int:
        """The number of heads between start and end: 0 for a direct path, 2 for a virtual head."""
        return len(self.heads)

    def __str__(self) -> str:
        return " > ".join((self.start, *map(str, self.heads), self.end))


AnyPath = Path | str
"A path as a Path or as text."


def head(cfg: GPTConfig, name: AnyHead) -> Head:
    """The head that a label or pair names; ValueError, with the heads that exist, if there is no
    such head."""
    if isinstance(name, str):
        match = re.fullmatch(r"L(\d+)H(\d+)", name)
        if match is None:
            raise ValueError(f"a head is named like 'L1H4' or (1, 4), got {name!r}")
        name = (int(match[1]), int(match[2]))
    try:
        layer, number = map(operator.index, name)
    except (TypeError, ValueError):
        raise ValueError(f"a head is named like 'L1H4' or (1, 4), got {name!r}") from None
    if not (0 <= layer < cfg.n_layers and 0 <= number < cfg.n_heads):
        raise ValueError(
            f"there is no head {Head(layer, number)}: the model has {cfg.n_layers} layers of "
            f"{cfg.n_heads} heads, counted from 0"
        )
    return Head(layer, number)


def heads(cfg: GPTConfig, names: Sequence[AnyHead]) -> tuple[Head, ...]:
    """The heads that several labels or pairs name; ValueError unless their layers increase."""
    if isinstance(names, str):
        raise ValueError(f"expected a list of heads, got the text {names!r}")
    found = tuple(head(cfg, name) for name in names)
    for first, second in pairwise(found):
        if first.layer >= second.layer:
            raise ValueError(
                f"{first} cannot be read by {second}: along a path the layers must increase, "
                f"got {' > '.join(map(str, found))}"
            )
    return found


def path(cfg: GPTConfig, given: AnyPath) -> Path:
    """The path of a text such as 'embed > L0H1 > logits'. ValueError for fewer than two names, for
    heads that do not exist, and if the layers of the heads do not increase."""
    if isinstance(given, Path):
        heads(cfg, given.heads)
        return given
    names = [name.strip() for name in given.split(">")]
    if len(names) < 2:
        raise ValueError(f"a path is written like 'embed > L0H1 > logits', got {given!r}")
    start, *between, end = names
    return Path(start, heads(cfg, between), end)


def every_head(cfg: GPTConfig) -> list[Head]:
    """All heads, layer after layer."""
    return [Head(layer, head) for layer in range(cfg.n_layers) for head in range(cfg.n_heads)]


def mlp(cfg: GPTConfig, name: str) -> int:
    """The layer of an MLP named like 'MLP0'; ValueError, with the MLPs that exist, if there is no
    such MLP."""
    match = re.fullmatch(r"MLP(\d+)", name)
    if match is None or cfg.d_mlp is None or int(match[1]) >= cfg.n_layers:
        exist = "is attention-only" if cfg.d_mlp is None else f"has MLP0 to MLP{cfg.n_layers - 1}"
        raise ValueError(f"there is no {name!r}: the model {exist}")
    return int(match[1])


def mlp_input(cfg: GPTConfig, name: str) -> tuple[int, bool]:
    """The layer of an MLP that reads as 'MLP0', and whether it is the linear read 'MLP0.linear' of
    a gated MLP; 'MLP0' is its gate. ValueError for any other name."""
    label, _, half = name.partition(".")
    if half and not (half == "linear" and cfg.gated_mlp):
        raise ValueError(f"there is no {name!r}: an MLP reads as {label}, and a gated MLP also as "
                         f"{label}.linear")  # fmt: skip
    return mlp(cfg, label), half == "linear"


def neuron(cfg: GPTConfig, name: str) -> tuple[int, int]:
    """The layer and the number of a neuron named like 'MLP0N17'; ValueError, with the neurons that
    exist, if there is no such neuron."""
    match = re.fullmatch(r"(MLP\d+)N(\d+)", name)
    if match is None:
        raise ValueError(f"a neuron is named like 'MLP0N17', got {name!r}")
    layer, number = mlp(cfg, match[1]), int(match[2])
    if number >= (cfg.d_mlp or 0):
        raise ValueError(f"there is no {name!r}: {match[1]} has N0 to N{(cfg.d_mlp or 0) - 1}")
    return layer, number


def writer(cfg: GPTConfig, name: str) -> Writer:
    """The hook point where a component writes: embed, pos, a head as L0H1, the attention of a layer
    as L0 attn, an MLP as MLP0, a neuron as MLP0N17. ValueError for any other name."""
    if name in ("embed", "pos"):
        return Writer(name, {"embed": "embed", "pos": "pos_embed"}[name])
    if match := re.fullmatch(r"L(\d+) attn", name):
        return Writer(name, "attn_out", head(cfg, (int(match[1]), 0)).layer)
    if re.fullmatch(r"L\d+H\d+", name):
        layer, number = head(cfg, name)
        return Writer(name, "z", layer, head=number)
    if re.fullmatch(r"MLP\d+", name):
        return Writer(name, "mlp_out", mlp(cfg, name))
    if re.fullmatch(r"MLP\d+N\d+", name):
        layer, number = neuron(cfg, name)
        return Writer(name, "post", layer, neuron=number)
    raise ValueError(
        f"no component is called {name!r}: there are embed, pos, heads as L0H1, the attention of a "
        f"layer as L0 attn, MLPs as MLP0 and their neurons as MLP0N17"
    )


def head_input(cfg: GPTConfig, name: str) -> tuple[Head, str]:
    """The head and the letter Q, K or V of a name such as L1H2.K; ValueError for any other name."""
    label, _, what = name.partition(".")
    if what not in ("Q", "K", "V"):
        raise ValueError(f"a path ends in logits, MLP0 or a head's {label}.Q, .K or .V; "
                         f"got {name!r}")  # fmt: skip
    return head(cfg, label), what


def reader(cfg: GPTConfig, name: str) -> Reader:
    """The hook point where a component reads the stream: L0H1.Q, .K or .V, MLP0, or logits.
    ValueError for any other name."""
    if name == "logits":
        point = f"blocks.{cfg.n_layers - 1}.hook_resid_post"
        return Reader(name, point, point, cfg.n_layers)
    if name.startswith("MLP"):
        layer = mlp(cfg, name)
        return Reader(name, f"blocks.{layer}.hook_mlp_in", f"blocks.{layer}.hook_mlp_in", layer)
    (layer, number), what = head_input(cfg, name)
    block, letter = f"blocks.{layer}", what.lower()
    points = f"{block}.hook_{letter}_input", f"{block}.attn.hook_{letter}"
    return Reader(name, *points, layer, number, what)


def senders(cfg: GPTConfig) -> list[str]:
    """The names of all components that write to the stream, in the order of the model: embed, pos
    if positions are added to the stream, heads and MLPs."""
    names = ["embed", "pos"] if cfg.positions_in_stream else ["embed"]
    for layer in range(cfg.n_layers):
        names += [f"L{layer}H{number}" for number in range(cfg.n_heads)]
        names += [] if cfg.attn_only else [f"MLP{layer}"]
    return names


def receivers(cfg: GPTConfig) -> list[str]:
    """The names of all components that read from the stream, in the order of the model: the inputs
    of heads, MLPs, and logits."""
    names = []
    for layer in range(cfg.n_layers):
        names += [f"L{layer}H{number}.{what}" for number in range(cfg.n_heads) for what in "QKV"]
        names += [] if cfg.attn_only else [f"MLP{layer}"]
    return [*names, "logits"]


def depth(cfg: GPTConfig, name: str) -> int:
    """The order of a writer or reader on the way from the embedding (0) to the logits. Heads of
    layer n have depth 2n + 1, its MLP has 2n + 2, and 2n + 1 in a parallel block. A component reads
    from components of smaller depth."""
    if name in ("embed", "pos", "logits"):
        return 2 * cfg.n_layers + 1 if name == "logits" else 0
    if name.startswith("MLP"):
        return 2 * mlp_input(cfg, name)[0] + (1 if cfg.parallel_attn_mlp else 2)
    label = name.partition(".")[0]
    if not re.fullmatch(r"L\d+H\d+", label):
        raise ValueError(
            f"no part of a model is called {name!r}: there are embed, pos, heads as L0H1 (which "
            f"read as L0H1.Q, .K, .V), MLPs as MLP0, and logits"
        )
    return 2 * head(cfg, label).layer + 1
