"""A model as a graph: senders write to the residual stream, receivers read from it.

Senders are embed, pos where positions enter the stream, heads and MLPs. Receivers are the inputs of
a head (L1H2.Q, .K, .V), MLPs, and logits. An edge leads from a sender to every receiver after it; a
receiver reads the stream before its norm. Biases are in the stream and belong to no edge. An edge
is written as the path it is, "L0H1 > L1H2.K". A circuit is a set of edges, a boolean DataArray
(sender, receiver). (Conmy et al. 2023, "Towards automated circuit discovery", section 2,
https://arxiv.org/abs/2304.14997)
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from xarray import DataArray

from circuits.model import GPT, AnyPath, GPTConfig, Reader, components

Edge = AnyPath | tuple[str, str]
"An edge: 'L0H1 > L1H2.K', the same as a Path, or the pair of sender and receiver."


@dataclass(frozen=True)
class Graph:
    """The senders and receivers of a model in order, and which edges exist."""

    senders: tuple[str, ...]
    receivers: tuple[Reader, ...]
    exists: np.ndarray
    "[sender receiver], boolean."

    @property
    def coords(self) -> dict[str, list[str]]:
        """The names of senders and receivers, as coordinates of a DataArray."""
        return {"sender": [*self.senders], "receiver": [one.name for one in self.receivers]}

    @property
    def points(self) -> dict[str, list[int]]:
        """The hook points where receivers read, and the numbers of the receivers there."""
        found: dict[str, list[int]] = {}
        for number, receiver in enumerate(self.receivers):
            found.setdefault(receiver.point, []).append(number)
        return found

    def label(self, values: np.ndarray, name: str, *dims: str, **attrs: Any) -> DataArray:
        """Values of edges as a DataArray (sender, receiver, ...)."""
        return DataArray(values, self.coords, ("sender", "receiver", *dims), name, attrs)


@cache
def graph_of(cfg: GPTConfig) -> Graph:
    """The graph of all models with this config. ValueError for a model without layers."""
    if cfg.n_layers == 0:
        raise ValueError("a model without layers has one edge alone, from embed to logits")
    senders, receivers = components.senders(cfg), components.receivers(cfg)
    depths = ([components.depth(cfg, name) for name in names] for names in (senders, receivers))
    read = tuple(components.reader(cfg, name) for name in receivers)
    return Graph(tuple(senders), read, np.less.outer(*map(np.array, depths)))


def edges(model: GPT) -> DataArray:
    """All edges of a model, (sender, receiver): the circuit that is the whole model."""
    graph = graph_of(model.cfg)
    return graph.label(graph.exists.copy(), "edges")


def circuit(model: GPT, chosen: Iterable[Edge]) -> DataArray:
    """The circuit of these edges; KeyError for an edge that does not exist."""
    whole = edges(model)
    found = whole.copy(data=np.zeros_like(whole.values)).rename("circuit")
    for edge in chosen:
        pair = edge if isinstance(edge, tuple) else re.split(r"\s*>\s*", str(edge))
        sender, receiver = pair[0], pair[-1]
        known = len(pair) == 2 and sender in whole.sender and receiver in whole.receiver
        if not known or not whole.sel(sender=sender, receiver=receiver):
            raise KeyError(f"there is no edge {' > '.join(pair)}: senders are "
                           f"{whole.sender.values.tolist()} and receivers, which come after them, "
                           f"{whole.receiver.values.tolist()}")  # fmt: skip
        found.loc[{"sender": sender, "receiver": receiver}] = True
    return found


def names(kept: DataArray) -> list[str]:
    """The edges of a circuit, as 'L0H1 > L1H2.K', in the order of their receivers."""
    by_receiver = kept.transpose("receiver", "sender")
    return [f"{kept.sender.values[a]} > {kept.receiver.values[b]}"
            for b, a in np.argwhere(by_receiver.values)]  # fmt: skip


def owner(receiver: str) -> str:
    """The component that a receiver belongs to: L1H2 for L1H2.K."""
    return receiver.partition(".")[0]
