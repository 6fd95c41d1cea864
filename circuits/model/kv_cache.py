"""KeyValueCache: the keys and values of the tokens that a model has read so far.

A new token never changes earlier positions, so their keys and values stay the same. Each layer
holds its keys and values after hooks and after smearing. With smeared keys it also holds the
unsmeared keys, because the next key is mixed with the last *unsmeared* key.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from circuits.model.config import GPTConfig, check_causal

Heads = Float[Tensor, "batch pos head d_head"]
Sources = Float[Tensor, "batch src head d_head"]


class LayerPast:
    """The keys and values of one layer, for the first `cache.n` positions. A run appends its keys
    and values; `cache.n` grows when all layers have run."""

    def __init__(self, cache: "KeyValueCache", held: dict[str, Sources] | None = None) -> None:
        self.cache = cache
        self.held: dict[str, Sources] = held or {}

    def extended(self, k: Heads, v: Heads) -> tuple[Sources, Sources]:
        """The keys and the values, past and new."""
        return self._appended("k", k), self._appended("v", v)

    def preceded(self, k: Heads) -> Sources:
        """The new unsmeared keys, after the last past unsmeared key, if there is one."""
        return self._appended("unsmeared", k)[:, max(self.cache.n - 1, 0) :]

    def _appended(self, name: str, new: Heads) -> Sources:
        n, held = self.cache.n, self.held.get(name, new[:, :0])
        size = n + new.shape[1]
        if self.cache.frozen:
            past = held[:, :n].repeat(len(new) // max(1, len(held)), 1, 1, 1)
            return torch.cat([past, new], 1)
        # The tensor grows by a factor of 2. A tensor with gradients is never written to.
        if held.shape[1] < size or held.requires_grad or new.requires_grad:
            room = new.new_empty(len(new), size, *new.shape[2:])
            self.held[name] = torch.cat([held[:, :n], new, room], 1)
        else:
            held[:, n:size] = new
        return self.held[name][:, :size]


class KeyValueCache:
    """The keys and values of past tokens: give it to each `model(tokens, past_kv_cache=...)` with
    the next tokens.

    A run does not change a frozen cache. A frozen cache with b rows serves any multiple of b rows:
    row r continues its row r % b. It also serves runs through some layers only.
    """

    def __init__(self, n_layers: int, batch_size: int = 1) -> None:
        if not isinstance(batch_size, int) or batch_size < 1:
            raise ValueError(f"batch_size must be a whole number >= 1, got {batch_size!r}; "
                             f"keys and values lie on the model's device")  # fmt: skip
        self.n, self.batch_size, self.frozen = 0, batch_size, False
        self.real: Bool[Tensor, "batch src"] | None = None  # tokens and no pads; None: all are
        self.layers = [LayerPast(self) for _ in range(n_layers)]

    @classmethod
    def init_cache(cls, cfg: GPTConfig, batch_size: int = 1) -> "KeyValueCache":
        """An empty cache for a model of this config, and for this number of rows."""
        return cls(cfg.n_layers, batch_size)

    def __getitem__(self, layer: int) -> LayerPast:
        return self.layers[layer]

    def freeze(self) -> None:
        """From now on runs read the cache and do not change it."""
        self.frozen = True

    def unfreeze(self) -> None:
        """From now on runs add to the cache again."""
        self.frozen = False

    def upto(self, n: int) -> "KeyValueCache":
        """The first `n` positions as a frozen cache, without a copy of the tensors."""
        if not 0 <= n <= self.n:
            raise ValueError(f"the past has {self.n} positions, not {n}")
        part = KeyValueCache(0, self.batch_size)
        part.n, part.frozen = n, True
        part.layers = [
            LayerPast(part, {name: held[:, :n] for name, held in layer.held.items()})
            for layer in self.layers
        ]
        part.real = None if self.real is None else self.real[:, :n]
        return part

    def joined(
        self, real: Bool[Tensor, "batch pos"] | None, batch: int, n: int
    ) -> Bool[Tensor, "batch src"] | None:
        """True where a past or new position holds a token, False at pads; None without pads."""
        if real is None and self.real is None:
            return None
        some = self.real if real is None else real
        assert some is not None
        past = some.new_ones(self.batch_size, self.n) if self.real is None else self.real
        new = some.new_ones(batch, n) if real is None else real
        return torch.cat([past.repeat(batch // self.batch_size, 1), new], 1)

    def advance(self, n: int, real: Bool[Tensor, "batch src"] | None = None) -> None:
        """Count the `n` positions that every layer has appended. `real` is True at tokens of all
        positions, and None without pads. A frozen cache stays unchanged."""
        if not self.frozen:
            self.n, self.real = self.n + n, real

    def check(self, cfg: GPTConfig, batch: int, n: int, layers: int) -> None:
        """ValueError unless a model of this config can run `n` new positions of `batch` rows after
        the cache, through `layers` layers."""
        check_causal(cfg, "past_kv_cache")
        if len(self.layers) != cfg.n_layers:
            raise ValueError(f"past_kv_cache has {len(self.layers)} layers, and the model has "
                             f"{cfg.n_layers}")  # fmt: skip
        fits = batch % self.batch_size == 0 if self.frozen else batch == self.batch_size
        if not fits:
            raise ValueError(f"past_kv_cache is for a batch of {self.batch_size}, got {batch} rows")
        if layers < cfg.n_layers and not self.frozen:
            raise ValueError(
                f"the run adds {layers} of {cfg.n_layers} layers to past_kv_cache: leave "
                f"start_at_layer and stop_at_layer out, or freeze() it"
            )
        if self.n + n > cfg.n_ctx:
            raise ValueError(
                f"{self.n} tokens in past_kv_cache and {n} new ones are "
                f"{self.n + n - cfg.n_ctx} more than the context of n_ctx={cfg.n_ctx}"
            )
