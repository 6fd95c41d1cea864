"""Batches of runs that share their beginning with a clean run.

A change in a layer at a position reaches only later layers, and only this and later positions. So
an edited run need not repeat the clean run: it starts in its first edited layer, from the stream of
the clean run. At its first edited position it uses the keys and values of the clean run for the
positions before.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, NamedTuple

from jaxtyping import Float, Int
from torch import Tensor

from circuits.model import GPT, KeyValueCache

PER_HEAD = ("hook_q_input", "hook_k_input", "hook_v_input", "hook_result")
"Hook points with `n_heads` times the size of the stream. A run computes them only for hooks."
SLACK = 64
"The number of tokens that a batch may run again needlessly before a second batch is cheaper."


class Start(NamedTuple):
    """The first layer and position in which a run differs from the clean run. Layer -1 means before
    the blocks, and n_layers means after them."""

    layer: int
    pos: int


@dataclass(frozen=True)
class CleanRun:
    """The clean run: its tokens, and the stream before each block and after the last. If a run
    starts after position 0, also the keys and values of all layers."""

    tokens: Int[Tensor, "batch pos"]
    streams: list[Float[Tensor, "batch pos d_model"]]
    past: KeyValueCache | None

    def copies(self, n: int, start: Start) -> dict[str, Any]:
        """The arguments for the model that continue `n` copies of the clean run from a start. The
        batch has copy after copy, [n*batch pos-start.pos ...]."""
        begin = self.tokens if start.layer < 0 else self.streams[start.layer]
        return {
            "input": begin[:, start.pos :].repeat(n, *[1] * (begin.ndim - 1)),
            "start_at_layer": None if start.layer < 0 else start.layer,
            "past_kv_cache": self.past.upto(start.pos) if self.past and start.pos else None,
        }


def run_clean(model: GPT, tokens: Int[Tensor, "batch pos"], by_position: bool) -> CleanRun:
    """The clean run of a sweep. `by_position` keeps keys and values, for starts after position
    0."""
    n = model.cfg.n_layers
    past = KeyValueCache.init_cache(model.cfg, len(tokens)) if by_position else None
    final, cache = model.run_with_cache(
        tokens,
        stop_at_layer=n,
        past_kv_cache=past,
        names_filter=lambda name: name.endswith("hook_resid_pre"),
    )
    return CleanRun(tokens, [*(cache["resid_pre", layer] for layer in range(n)), final], past)


class Sizes:
    """An upper estimate of the bytes that a batch of runs needs: all activations of one block, the
    activations that hooks need, and the part of the clean run that is kept."""

    def __init__(
        self,
        model: GPT,
        tokens: Tensor,
        every: bool,
        by_position: bool = False,
        names: Iterable[str] = (),
    ) -> None:
        """`every` says that logits are made at all positions and not at one. `names` are the hook
        points that will get hooks. Points with active hooks are counted too."""
        hooked = {name for name, point in model.hook_dict.items() if point.has_active_hooks}
        per_head = (name for name in hooked | set(names) if name.endswith(PER_HEAD))
        layers = Counter(name.split(".")[1] for name in per_head)
        self.wide = max(layers.values(), default=0)  # the most per-head points of one layer
        self.cfg, self.every, self.by_position = model.cfg, every, by_position
        self.batch, self.n = tokens.shape
        self.width, self.d_vocab_out = model.W_E.element_size(), model.W_U.shape[1]

    def kept(self) -> int:
        """The bytes of the clean run: streams, twice the keys and values (a batch copies them), and
        logits if they are made at all positions."""
        cfg, inner = self.cfg, self.cfg.n_heads * self.cfg.d_head
        keys = 2 * (3 if cfg.smeared_keys else 2) * inner if self.by_position else 0
        each = (cfg.n_layers + 1) * cfg.d_model + cfg.n_layers * keys
        each += self.d_vocab_out if self.every else 0
        return self.width * self.batch * self.n * each

    def run(self, pos: int = 0) -> int:
        """The bytes of one run from a position on, with one layer's keys and values before it."""
        cfg, tail = self.cfg, self.n - pos
        inner = cfg.n_heads * cfg.d_head
        block = 8 * cfg.d_model + 4 * inner + 3 * cfg.n_heads * self.n + 3 * (cfg.d_mlp or 0)
        if self.wide:  # each per-head input, and four more for the hooks and the norm of one
            block += (self.wide + 4) * cfg.n_heads * cfg.d_model
        keys = (3 if cfg.smeared_keys else 2) * inner * (self.n + pos) if pos else 0
        logits = (tail if self.every else 1) * 3 * self.d_vocab_out
        return self.width * self.batch * (tail * block + keys + logits)

    def at_once(self, memory: int, pos: int = 0) -> int:
        """The number of runs from a position on that fit into `memory` bytes; at least one."""
        return max(1, (memory - self.kept()) // self.run(pos))


def batches(
    starts: Sequence[Start], numbers: Sequence[int], sizes: Sizes, memory: int
) -> Iterator[tuple[Start, list[int]]]:
    """Groups of runs that share a batch, each with the start of the batch. The runs of a batch
    start in one layer. The batch starts at the first position of its runs. It takes as many runs as
    fit into `memory` bytes, but not more than SLACK tokens that are run again needlessly."""
    order = sorted(numbers, key=lambda number: starts[number])
    for _, layer in groupby(order, key=lambda number: starts[number].layer):
        batch: list[int] = []
        wasted = 0
        for number in layer:
            first = starts[batch[0] if batch else number]
            wasted += (starts[number].pos - first.pos) * sizes.batch
            if batch and (wasted > SLACK or len(batch) == sizes.at_once(memory, first.pos)):
                yield first, batch
                batch, wasted = [], 0
            batch.append(number)
        yield starts[batch[0]], batch
