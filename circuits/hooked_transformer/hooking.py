"""Hooks and runs with HookedTransformer's arguments."""

from typing import Any, Literal

import torch

from circuits.hooked_transformer.cache import ActivationCache
from circuits.hooked_transformer.config import HookedTransformerConfig
from circuits.hooks import Cache, Hook, Hooked, HookFn, HookPoint, Names, PosSlice

FLAGS = {"hook_result": "use_attn_result", "hook_q_input": "use_split_qkv_input",
         "hook_k_input": "use_split_qkv_input", "hook_v_input": "use_split_qkv_input",
         "hook_mlp_in": "use_hook_mlp_in", "hook_tokens": "use_hook_tokens"}  # fmt: skip
"Hook points that run_with_cache keeps by default only if their flag is set. All fire in every run."


class HooksAsBefore(Hooked):
    """The methods of Hooked with HookedTransformer's signatures."""

    cfg: HookedTransformerConfig

    def set_use_attn_result(self, use_attn_result: bool) -> None:
        """Whether run_with_cache keeps `result` by default."""
        self.cfg.use_attn_result = use_attn_result

    def set_use_split_qkv_input(self, use_split_qkv_input: bool) -> None:
        """Whether run_with_cache keeps `q_input`, `k_input` and `v_input` by default."""
        self.cfg.use_split_qkv_input = use_split_qkv_input

    def set_use_hook_mlp_in(self, use_hook_mlp_in: bool) -> None:
        """Whether run_with_cache keeps `mlp_in` by default. ValueError without MLPs."""
        if self.cfg.attn_only:
            raise ValueError("the model is attention-only: it has no hook_mlp_in")
        self.cfg.use_hook_mlp_in = use_hook_mlp_in

    def set_use_attn_in(self, use_attn_in: bool) -> None:
        """ValueError for True: there is no hook_attn_in; use q_input, k_input and v_input."""
        self.cfg.use_attn_in = use_attn_in

    def add_perma_hook(self, name: Names, hook: HookFn, dir: Literal["fwd", "bwd"] = "fwd") -> None:
        """Attach a hook that reset_hooks() does not remove."""
        self.add_hook(name, hook, dir, is_permanent=True)

    def hook_points(self) -> list[HookPoint]:
        """All hook points, in the order of the model."""
        return list(self.hook_dict.values())

    def setup(self) -> None:
        """Name the hook points again after new ones were added."""
        self.name_hooks()

    def remove_all_hook_fns(
        self,
        direction: Literal["fwd", "bwd", "both"] = "both",
        including_permanent: bool = False,
        level: int | None = None,
    ) -> None:
        """Detach hooks as reset_hooks does, but keep every `ctx`."""
        self.reset_hooks(False, direction, including_permanent, level)

    def list_hooks(
        self,
        name_filter: Names | None = None,
        dir: Literal["fwd", "bwd", "both"] = "both",
        including_permanent: bool = True,
    ) -> dict[str, list[Hook]]:
        """The attached hooks by the name of their hook point; points without hooks are left out."""
        names = self.hook_dict if name_filter is None else self.hook_names(name_filter)
        found = {}
        for name in names:
            point = self.hook_dict[name]
            hooks = [hook for hooks in point.hook_lists(dir) for hook in hooks]
            found[name] = [hook for hook in hooks if including_permanent or not hook.is_permanent]
        return {name: hooks for name, hooks in found.items() if hooks}

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
        pos_slice: PosSlice | None = None,
        **kwargs: Any,
    ) -> tuple[Any, Any]:
        """The model's output and its activations, detached: an ActivationCache, or a dict without
        `return_cache_object`. Hooked.run_with_cache and FLAGS say which activations are kept."""
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

    def _only_when_named(self) -> dict[str, bool]:
        flags = {name: FLAGS.get(name.rpartition(".")[2]) for name in self.hook_dict}
        return {name: bool(flag) and not getattr(self.cfg, flag) for name, flag in flags.items()}
