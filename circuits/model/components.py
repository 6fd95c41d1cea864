"""The parts of a model by name, in the order in which they write to the residual stream.

`embed`, `pos`, the heads `L0H0`, `L0H1`, ..., the MLPs `MLP0`, ... and their
neurons `MLP0N0`, ... A head is named by its label or by (layer, head), both from 0.
"""

import operator
import re
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

from circuits.model.config import GPTConfig


class Head(NamedTuple):
    """A head by layer and number, both from 0; as text L1H4."""

    layer: int
    head: int

    def __str__(self) -> str:
        return f"L{self.layer}H{self.head}"


class Writer(NamedTuple):
    """Where a component writes: a hook point, by its short name and layer, and its head or neuron
    there if it is one."""

    name: str
    point: str
    layer: int | None = None
    head: int | None = None
    neuron: int | None = None

    @property
    def key(self) -> str | tuple[str, int]:
        """The hook point as a cache takes it: ("z", 1)."""
        return self.point if self.layer is None else (self.point, self.layer)


AnyHead = Head | tuple[int, int] | str
"L1H4 in any of its forms: Head(1, 4), (1, 4), 'L1H4'."


def head(cfg: GPTConfig, name: AnyHead) -> Head:
    """The head of this model that a label or pair names; ValueError with what exists if none."""
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
    """Several heads, one after the other; ValueError unless their layers increase."""
    if isinstance(names, str):
        raise ValueError(f"wanted several heads, one after the other, got {names!r}")
    found = tuple(head(cfg, name) for name in names)
    for first, second in pairwise(found):
        if first.layer >= second.layer:
            raise ValueError(
                f"{first} cannot be read by {second}: along a path the layers must increase, "
                f"got {' > '.join(map(str, found))}"
            )
    return found


def every_head(cfg: GPTConfig) -> list[Head]:
    """All heads, layer after layer."""
    return [Head(layer, head) for layer in range(cfg.n_layers) for head in range(cfg.n_heads)]


def mlp(cfg: GPTConfig, name: str) -> int:
    """The layer of an MLP named like 'MLP0'; ValueError with what exists if there is none."""
    match = re.fullmatch(r"MLP(\d+)", name)
    if match is None or cfg.d_mlp is None or int(match[1]) >= cfg.n_layers:
        exist = "is attention-only" if cfg.d_mlp is None else f"has MLP0 to MLP{cfg.n_layers - 1}"
        raise ValueError(f"there is no {name!r}: the model {exist}")
    return int(match[1])


def neuron(cfg: GPTConfig, name: str) -> tuple[int, int]:
    """The layer of a neuron named like 'MLP0N17', and its number there; ValueError with what exists
    if there is none."""
    match = re.fullmatch(r"(MLP\d+)N(\d+)", name)
    if match is None:
        raise ValueError(f"a neuron is named like 'MLP0N17', got {name!r}")
    layer, number = mlp(cfg, match[1]), int(match[2])
    if number >= (cfg.d_mlp or 0):
        raise ValueError(f"there is no {name!r}: {match[1]} has N0 to N{(cfg.d_mlp or 0) - 1}")
    return layer, number


def writer(cfg: GPTConfig, name: str) -> Writer:
    """Where a component writes: embed, pos, a head as L0H1, the attention of a layer as L0 attn, an
    MLP as MLP0, a neuron as MLP0N17. ValueError with what exists if there is none."""
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


def depth(cfg: GPTConfig, name: str) -> int:
    """Where a writer or reader stands from the embedding (0) up to the logits: a name can read from
    names of smaller depth. Readers are a head's input as in L1H4.Q, an MLP, or logits."""
    if name in ("embed", "pos", "logits"):
        return 2 * cfg.n_layers + 1 if name == "logits" else 0
    if name.startswith("MLP"):
        return 2 * mlp(cfg, name) + 2
    label = name.partition(".")[0]
    if not re.fullmatch(r"L\d+H\d+", label):
        raise ValueError(
            f"no part of a model is called {name!r}: there are embed, pos, heads as L0H1 (which "
            f"read as L0H1.Q, .K, .V), MLPs as MLP0, and logits"
        )
    return 2 * head(cfg, label).layer + 1
