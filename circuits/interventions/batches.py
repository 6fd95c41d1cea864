"""How runs that differ from a clean one late are made together: what they go on from, and which of
them share a batch.

A change in a layer at a position reaches what comes after both, and nothing else. So a run starts
in its first changed layer from the clean run's stream, at its first changed position after the
clean run's keys and values.
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
"Points with `n_heads` times the stream, which a run computes only where somebody listens."
SLACK = 64
"So many tokens may be run again for nothing before another batch is worth its while."


class Start(NamedTuple):
    """Where a run begins to differ: in a layer (-1 for what comes before the blocks, n_layers for
    what comes after them), at a position."""

    layer: int
    pos: int


@dataclass(frozen=True)
class Begun:
    """The clean run: its tokens, the stream before each block and the final one, and the keys and
    values of all layers if any run starts later than at position 0."""

    tokens: Int[Tensor, "batch pos"]
    streams: list[Float[Tensor, "batch pos d_model"]]
    past: KeyValueCache | None

    def copies(self, n: int, start: Start) -> dict[str, Any]:
        """What to call the model with for `n` copies of the run from a start on, copy after copy:
        rows are [n*batch pos-start.pos ...]."""
        begin = self.tokens if start.layer < 0 else self.streams[start.layer]
        return {
            "input": begin[:, start.pos :].repeat(n, *[1] * (begin.ndim - 1)),
            "start_at_layer": None if start.layer < 0 else start.layer,
            "past_kv_cache": self.past.upto(start.pos) if self.past and start.pos else None,
        }


def begun(model: GPT, tokens: Int[Tensor, "batch pos"], by_position: bool) -> Begun:
    """The clean run, from which others start; `by_position` if some start after position 0."""
    n = model.cfg.n_layers
    past = KeyValueCache.init_cache(model.cfg, len(tokens)) if by_position else None
    final, cache = model.run_with_cache(
        tokens,
        stop_at_layer=n,
        past_kv_cache=past,
        names_filter=lambda name: name.endswith("hook_resid_pre"),
    )
    return Begun(tokens, [*(cache["resid_pre", layer] for layer in range(n)), final], past)


class Sizes:
    """What a batch of runs takes, in bytes, by an estimate from above: counted as if all of one
    block were held, with its patterns and what somebody listens to, and beside it what is kept of
    the clean run."""

    def __init__(
        self,
        model: GPT,
        tokens: Tensor,
        every: bool,
        by_position: bool = False,
        names: Iterable[str] = (),
    ) -> None:
        """`every`: logits are made at all positions, not at one; `names`: of hook points that will
        be listened to, beside those that are already."""
        heard = {name for name, point in model.hook_dict.items() if point.has_active_hooks} | set(
            names
        )
        layers = Counter(name.split(".")[1] for name in heard if name.endswith(PER_HEAD))
        self.wide = max(layers.values(), default=0)  # most per-head points of one layer
        self.cfg, self.every, self.by_position = model.cfg, every, by_position
        self.batch, self.n = tokens.shape
        self.width, self.d_vocab_out = model.W_E.element_size(), model.W_U.shape[1]

    def kept(self) -> int:
        """Streams and, with room for as many again, keys and values of the clean run; its logits
        where they are made at all positions."""
        cfg, inner = self.cfg, self.cfg.n_heads * self.cfg.d_head
        keys = 2 * (3 if cfg.smeared_keys else 2) * inner if self.by_position else 0
        each = (cfg.n_layers + 1) * cfg.d_model + cfg.n_layers * keys
        each += self.d_vocab_out if self.every else 0
        return self.width * self.batch * self.n * each

    def run(self, pos: int = 0) -> int:
        """One run from a position on, with the keys and values of one layer before it."""
        cfg, tail = self.cfg, self.n - pos
        inner = cfg.n_heads * cfg.d_head
        block = 8 * cfg.d_model + 4 * inner + 3 * cfg.n_heads * self.n + 3 * (cfg.d_mlp or 0)
        if self.wide:  # each as the heads read it, and of one what its hooks and its norm make
            block += (self.wide + 4) * cfg.n_heads * cfg.d_model
        keys = (3 if cfg.smeared_keys else 2) * inner * (self.n + pos) if pos else 0
        logits = (tail if self.every else 1) * 3 * self.d_vocab_out
        return self.width * self.batch * (tail * block + keys + logits)

    def at_once(self, memory: int, pos: int = 0) -> int:
        """How many runs from a position on fit into so many bytes; at least one."""
        return max(1, (memory - self.kept()) // self.run(pos))


def batches(
    starts: Sequence[Start], numbers: Sequence[int], sizes: Sizes, memory: int
) -> Iterator[tuple[Start, list[int]]]:
    """Which of some runs go together, and where they start: in one layer, at the first position
    where one of them does, as many as fit into `memory` bytes and as long as the later ones run
    little again (SLACK)."""
    order = sorted(numbers, key=lambda number: starts[number])
    for _, layer in groupby(order, key=lambda number: starts[number].layer):
        together: list[int] = []
        again = 0
        for number in layer:
            first = starts[together[0] if together else number]
            again += (starts[number].pos - first.pos) * sizes.batch
            if together and (again > SLACK or len(together) == sizes.at_once(memory, first.pos)):
                yield first, together
                together, again = [], 0
            together.append(number)
        yield starts[together[0]], together
