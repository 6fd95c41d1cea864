"""Hooks and runs with HookedTransformer's arguments."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import torch

from circuits.cache import Cache
from circuits.hooked_transformer.cache import ActivationCache
from circuits.hooked_transformer.config import HookedTransformerConfig
from circuits.hooks import Hooked, HookFn, HookPoint, Names

Pairs = Sequence[tuple[Names, HookFn]]

FLAGS = {"hook_result": "use_attn_result", "hook_q_input": "use_split_qkv_input",
         "hook_k_input": "use_split_qkv_input", "hook_v_input": "use_split_qkv_input"}  # fmt: skip
"Hooks that a run keeps without being asked where the config has their flag. All fire always."


class HooksAsBefore(Hooked):
    """What Hooked does, by HookedTransformer's signatures."""

    cfg: HookedTransformerConfig

    def set_use_attn_result(self, use_attn_result: bool) -> None:
        """Whether run_with_cache keeps `result` without being asked."""
        self._set(use_attn_result=use_attn_result)

    def set_use_split_qkv_input(self, use_split_qkv_input: bool) -> None:
        """Whether run_with_cache keeps `q_input`, `k_input` and `v_input` without being asked."""
        self._set(use_split_qkv_input=use_split_qkv_input)

    def set_use_hook_mlp_in(self, use_hook_mlp_in: bool) -> None:
        """Changes the config only: `mlp_in` is there and kept anyway. ValueError without MLPs."""
        if self.cfg.attn_only:
            raise ValueError("the model is attention-only: it has no hook_mlp_in")
        self._set(use_hook_mlp_in=use_hook_mlp_in)

    def set_use_attn_in(self, use_attn_in: bool) -> None:
        """ValueError for True: there is no hook_attn_in, there are q_input, k_input, v_input."""
        self._set(use_attn_in=use_attn_in)

    def add_perma_hook(self, name: Names, hook: HookFn, dir: Literal["fwd", "bwd"] = "fwd") -> None:
        """Attach a hook that outlives reset_hooks()."""
        self.add_hook(name, hook, dir, is_permanent=True)

    def hook_points(self) -> list[HookPoint]:
        """All hook points, in the order of the model."""
        return list(self.hook_dict.values())

    def clear_contexts(self) -> None:
        """Empty the `ctx` of every hook point."""
        for point in self.hook_points():
            point.ctx.clear()

    @contextmanager
    def hooks(
        self,
        fwd_hooks: Pairs = (),
        bwd_hooks: Pairs = (),
        reset_hooks_end: bool = True,
        clear_contexts: bool = False,
    ) -> Iterator["HooksAsBefore"]:
        """Within the `with`, these hooks are attached; after it these and only these are gone, or
        stay, without `reset_hooks_end`, until reset_hooks()."""
        try:
            if reset_hooks_end:
                with super().hooks(fwd_hooks, bwd_hooks):
                    yield self
            else:
                self._attach(fwd_hooks, bwd_hooks)
                yield self
        finally:
            if clear_contexts:
                self.clear_contexts()

    def run_with_hooks(
        self,
        *args: Any,
        fwd_hooks: Pairs = (),
        bwd_hooks: Pairs = (),
        reset_hooks_end: bool = True,
        clear_contexts: bool = False,
        **kwargs: Any,
    ) -> Any:
        """What the model returns with these hooks attached, for this run or until reset_hooks().

        Backward hooks fire when a result of this run is differentiated, also later. ValueError if
        a hook that is for this run was never called.
        """
        if reset_hooks_end:
            result = super().run_with_hooks(
                *args, fwd_hooks=fwd_hooks, bwd_hooks=bwd_hooks, **kwargs
            )
        else:
            self._attach(fwd_hooks, bwd_hooks)
            result = self(*args, **kwargs)
        if clear_contexts:
            self.clear_contexts()
        return result

    def run_with_cache(
        self,
        *args: Any,
        return_cache_object: bool = True,
        remove_batch_dim: bool = False,
        names_filter: Names | None = None,
        device: torch.device | str | None = None,
        incl_bwd: bool = False,
        reset_hooks_end: bool = True,
        clear_contexts: bool = False,
        pos_slice: int | slice | Sequence[int] | None = None,
        **kwargs: Any,
    ) -> tuple[Any, Any]:
        """What the model returns, and the activations it met, detached: an ActivationCache, or a
        dict without `return_cache_object`. What is kept: see Hooked.run_with_cache, and FLAGS."""
        if incl_bwd or not reset_hooks_end:
            raise ValueError(
                "run_with_cache keeps no gradients, and no hooks: write `with model.hooks("
                "bwd_hooks=[(names, fn)]): model(tokens, return_type='loss').backward()`"
            )
        result, cache = super().run_with_cache(
            *args, names_filter=names_filter, device=device, pos_slice=pos_slice, **kwargs
        )
        if clear_contexts:
            self.clear_contexts()
        kept = self._as_before(cache)
        kept = kept.remove_batch_dim() if remove_batch_dim else kept
        return result, kept if return_cache_object else kept.cache_dict

    def _as_before(self, cache: Cache) -> ActivationCache:
        return ActivationCache(cache, self, asked=cache._asked)  # type: ignore[arg-type]

    def _attach(self, fwd_hooks: Pairs, bwd_hooks: Pairs) -> None:
        for names, fn in fwd_hooks:
            self.add_hook(names, fn)
        for names, fn in bwd_hooks:
            self.add_hook(names, fn, "bwd")

    def _set(self, **flags: bool) -> None:
        self.cfg = self.cfg.made(**flags)
        self._follow_flags()

    def _follow_flags(self) -> None:
        for name, point in self.hook_dict.items():
            flag = FLAGS.get(name.rpartition(".")[2])
            if flag is not None:
                point.per_head = not getattr(self.cfg, flag)
        self.name_hooks()
