"""A model as a graph: who writes to the residual stream, and who reads from it.

Senders are embed, pos where positions enter the stream, heads and MLPs; receivers are what a head
reads for its queries, keys and values (L1H2.Q, .K, .V), MLPs, and logits. An edge leads from a
sender to every receiver after it; a receiver reads the stream before its norm. Biases are in the
stream and are nobody's edge. A circuit is a set of edges, a boolean DataArray (sender, receiver).
(Conmy et al. 2023, "Towards automated circuit discovery", section 2,
https://arxiv.org/abs/2304.14997)
"""

import re
from collections.abc import Iterable
from typing import Any

import numpy as np
from xarray import DataArray

from circuits.model import GPT, components

Edge = tuple[str, str]
"A sender and a receiver by name."


def senders(model: GPT) -> list[str]:
    """What writes to the stream, in the order in which it does."""
    cfg = model.cfg
    enters = cfg.positional_embedding_type != "none" and not cfg.shortformer
    names = ["embed", "pos"] if enters else ["embed"]
    for layer in range(cfg.n_layers):
        names += [f"L{layer}H{head}" for head in range(cfg.n_heads)]
        names += [] if cfg.attn_only else [f"MLP{layer}"]
    return names


def receivers(model: GPT) -> list[str]:
    """What reads from the stream, in the order in which it does."""
    cfg, names = model.cfg, []
    for layer in range(cfg.n_layers):
        names += [f"L{layer}H{head}.{what}" for head in range(cfg.n_heads) for what in "QKV"]
        names += [] if cfg.attn_only else [f"MLP{layer}"]
    return [*names, "logits"]


def edges(model: GPT) -> DataArray:
    """Which edges there are, (sender, receiver): the circuit that is the whole model."""
    depth = {name: components.depth(model.cfg, name) for name in senders(model) + receivers(model)}
    there = [[depth[a] < depth[b] for b in receivers(model)] for a in senders(model)]
    return on_edges(model, np.array(there), "edges")


def by_name(scores: DataArray) -> DataArray:
    """Which edges there are in scores of edges, (sender, receiver): a name can be read by names of
    later layers, and by the MLP of its own."""
    depths = [np.array([_depth(str(name)) for name in scores[dim].values])
              for dim in ("sender", "receiver")]  # fmt: skip
    there = np.less.outer(*depths)
    coords = {dim: scores[dim].values for dim in ("sender", "receiver")}
    return DataArray(there, coords, ("sender", "receiver"))


def _depth(name: str) -> float:
    """components.depth, without a config."""
    if name in ("embed", "pos", "logits"):
        return np.inf if name == "logits" else 0.0
    layer = int(re.findall(r"\d+", name)[0])
    return 2.0 * layer + (2 if name.startswith("MLP") else 1)


def circuit(model: GPT, chosen: Iterable[Edge]) -> DataArray:
    """The circuit of some edges by name; KeyError for one that there is not."""
    whole = edges(model)
    mine = whole.copy(data=np.zeros_like(whole.values)).rename("circuit")
    for sender, receiver in chosen:
        known = sender in whole.sender and receiver in whole.receiver
        if not known or not whole.sel(sender=sender, receiver=receiver):
            raise KeyError(f"there is no edge {sender} -> {receiver}: senders are {senders(model)} "
                           f"and receivers, which come after them, {receivers(model)}")  # fmt: skip
        mine.loc[{"sender": sender, "receiver": receiver}] = True
    return mine


def names(kept: DataArray) -> list[Edge]:
    """The edges of a circuit by name, in the order of their receivers."""
    by_receiver = kept.transpose("receiver", "sender")
    return [(str(kept.sender.values[a]), str(kept.receiver.values[b]))
            for b, a in np.argwhere(by_receiver.values)]  # fmt: skip


def on_edges(model: GPT, values: np.ndarray, name: str, *dims: str, **attrs: Any) -> DataArray:
    """A DataArray (sender, receiver, ...)."""
    coords = {"sender": senders(model), "receiver": receivers(model)}
    return DataArray(values, coords, ("sender", "receiver", *dims), name, attrs)


def places(model: GPT) -> list[tuple[str, int | None]]:
    """Where each receiver reads, in their order: a hook point, and the head if it has heads."""
    cfg, found = model.cfg, []
    for layer in range(cfg.n_layers):
        found += [(f"blocks.{layer}.hook_{what}_input", head)
                  for head in range(cfg.n_heads) for what in "qkv"]  # fmt: skip
        found += [] if cfg.attn_only else [(f"blocks.{layer}.hook_mlp_in", None)]
    return [*found, (f"blocks.{cfg.n_layers - 1}.hook_resid_post", None)]


def points(model: GPT) -> dict[str, list[int]]:
    """The hook points where receivers read, and the numbers of those that read there."""
    found: dict[str, list[int]] = {}
    for number, (name, _) in enumerate(places(model)):
        found.setdefault(name, []).append(number)
    return found
