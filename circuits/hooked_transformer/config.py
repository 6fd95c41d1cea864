"""HookedTransformerConfig: a GPTConfig with the field names of TransformerLens."""

import math
from collections.abc import Mapping
from dataclasses import fields
from pprint import pformat
from typing import Any

import torch

from circuits.io import config_of
from circuits.model import GPTConfig

OURS = tuple(field.name for field in fields(GPTConfig))
ONLY_OURS = ("bias", "smeared_keys", "sinusoid_base", "sinusoid_scale", "init_range",
             "embed_init_range")  # fmt: skip
"Fields of a GPTConfig that TransformerLens does not have."
THEIRS: dict[str, Any] = {
    "model_name": "custom", "device": "cpu", "dtype": torch.float32, "n_devices": 1,
    "tokenizer_name": None, "default_prepend_bos": True, "tokenizer_prepends_bos": None,
    "use_attn_result": False, "use_split_qkv_input": False, "use_hook_mlp_in": False,
    "use_attn_in": False, "use_hook_tokens": False, "ungroup_grouped_query_attention": False,
    "use_attn_scale": True, "scale_attn_by_inverse_layer_idx": False, "use_local_attn": False,
    "window_size": None, "attn_types": None, "attention_dir": "causal", "d_vocab_out": -1,
    "gated_mlp": False, "final_rms": False, "post_embedding_ln": False,
    "n_key_value_heads": None, "init_mode": "gpt2", "init_weights": True,
    "original_architecture": None, "from_checkpoint": False, "checkpoint_index": None,
    "checkpoint_label_type": None, "checkpoint_value": None, "trust_remote_code": False,
}  # fmt: skip
"The defaults of TransformerLens's fields; the default device is the CPU."
_ONLY = {
    "n_devices": (1, "a model lies on one device"),
    "init_mode": ("gpt2", "every weight matrix is drawn with the same standard deviation"),
    "use_attn_in": (False, "there is no hook_attn_in: q_input, k_input and v_input can be hooked"),
    "ungroup_grouped_query_attention": (False, "every head has keys and values of its own"),
    "trust_remote_code": (False, "no code is fetched"),
}
"Fields that can have only this value here, each with the reason."
AT_ANY_TIME = ("use_attn_result", "use_split_qkv_input", "use_hook_mlp_in", "use_hook_tokens",
               "use_attn_in", "ungroup_grouped_query_attention", "default_prepend_bos",
               "model_name")  # fmt: skip
"Fields that can be set after the model is made: a new value acts from then on, or raises an error."


class HookedTransformerConfig(GPTConfig):
    """A GPTConfig from the fields and defaults of HookedTransformerConfig (2.x, 3.x), by keyword.

    ValueError names an unknown field, and a field that a GPT cannot express. d_vocab is required.
    `initializer_range` (0.8 / sqrt(d_model) by default) and `seed` act when a model is made. The
    model draws from its own generator: torch's global seed stays. With `init_weights=False` weights
    are drawn too. Fields can be set until a model is made with the config, and the fields in
    AT_ANY_TIME also in `model.cfg`.
    """

    def __new__(cls, **given: Any) -> "HookedTransformerConfig":
        return object.__new__(cls)

    def __init__(self, **given: Any) -> None:
        if "init_range" in given:  # a GPTConfig's own fields, as dataclasses.replace gives them
            given = {"attn_only": given.get("d_mlp") is None, **given}
        _check_only(given)
        if given.get("d_vocab") in (None, -1):
            raise ValueError(
                f"d_vocab must be a whole number >= 1, got {given.get('d_vocab')}: it is not read "
                f"from a tokenizer, so write d_vocab=len(tokenizer)"
            )
        theirs = {name: value for name, value in given.items() if name not in ONLY_OURS}
        ours = vars(config_of(theirs)) | {k: v for k, v in given.items() if k in ONLY_OURS}
        super().__init__(**{**ours, "init_range": _init_range(given, ours["d_model"])})
        seed, d_vocab_out = given.get("seed"), given.get("d_vocab_out")
        self.__dict__.update({  # numbers for fields that are None in a GPTConfig
            "_given": given,
            "seed": seed,
            "attn_scale": self.attn_scale or math.sqrt(self.d_head),
            "d_vocab_out": self.d_vocab if d_vocab_out in (None, -1) else d_vocab_out,
        })  # fmt: skip

    def __getattr__(self, name: str) -> Any:
        given = self.__dict__.get("_given", {})
        if name not in given and name not in THEIRS:
            raise AttributeError(f"HookedTransformerConfig has no field {name!r}")
        return given.get(name, THEIRS.get(name))

    def __setattr__(self, name: str, value: Any) -> None:
        if self.__dict__.get("_made") and name not in AT_ANY_TIME:
            raise AttributeError(
                f"{name} cannot be set, the model is made: make another of "
                f"HookedTransformerConfig.from_dict({{**cfg.to_dict(), {name!r}: {value!r}}}); "
                f"device and dtype change with model.to(...)"
            )
        self.become(**{name: value})

    def changed(self, **fields: Any) -> "HookedTransformerConfig":
        """A copy of the config with other values of these fields."""
        return HookedTransformerConfig(**{**self._given, **fields})

    def become(self, **fields: Any) -> None:
        """Change these fields in place."""
        self.__dict__.update(self.changed(**fields).__dict__)

    def made(self, **fields: Any) -> "HookedTransformerConfig":
        """`changed`, as the config of a model: then only fields in AT_ANY_TIME can be set."""
        cfg = self.changed(**fields)
        cfg.__dict__["_made"] = True
        return cfg

    @property
    def device(self) -> str:  # type: ignore[override]
        """The device on which a model is made; in `model.cfg`, the device of the model."""
        return str(self._given.get("device") or THEIRS["device"])

    @property
    def dtype(self) -> torch.dtype:  # type: ignore[override]
        """The dtype of the model's parameters."""
        dtype = self._given.get("dtype") or THEIRS["dtype"]
        return getattr(torch, dtype) if isinstance(dtype, str) else dtype

    @property
    def initializer_range(self) -> float:
        """The standard deviation of every weight matrix at initialisation."""
        return self.init_range

    @property
    def n_params(self) -> int:
        """The number of weights in the matrices of heads and MLPs, as TransformerLens counts it."""
        per_layer = 4 * self.n_heads * self.d_head + 2 * (self.d_mlp or 0)
        return self.n_layers * self.d_model * per_layer

    @classmethod
    def from_dict(cls, config_dict: Mapping[str, Any]) -> "HookedTransformerConfig":
        """The config with the fields of a dict."""
        return cls(**config_dict)

    @classmethod
    def unwrap(cls, config: Any) -> "HookedTransformerConfig":
        """A HookedTransformerConfig unchanged, or one made from a GPTConfig or a dict of fields;
        ValueError for any other value."""
        if isinstance(config, HookedTransformerConfig):
            return config
        if not isinstance(config, GPTConfig | Mapping):
            raise ValueError(f"expected a HookedTransformerConfig or a dict of its fields, got "
                             f"{config!r}; models by name: from_pretrained(name)")  # fmt: skip
        return cls(**(vars(config) if isinstance(config, GPTConfig) else config))

    def to_dict(self) -> dict[str, Any]:
        """All TransformerLens fields that were given or have a default, and the fields in ONLY_OURS
        that differ from their default; `from_dict` gives an equal config back."""
        names = {*OURS, *THEIRS, *self._given, "attn_only", "initializer_range"} - {*ONLY_OURS}
        ours = {name for name in ONLY_OURS if getattr(self, name) != getattr(GPTConfig, name)}
        return {name: getattr(self, name) for name in sorted(names | (ours - {"init_range"}))}

    def is_layer_norm_activation(self) -> bool:
        """True if the MLPs have a norm inside."""
        return str(self.act_fn).endswith("_ln")

    def __repr__(self) -> str:
        return "HookedTransformerConfig:\n" + pformat(self.to_dict())


def _check_only(given: Mapping[str, Any]) -> None:
    for name, (only, why) in _ONLY.items():
        if given.get(name, only) not in (only, None):
            raise ValueError(f"{name}={given[name]!r} cannot be expressed: {why}")


def _init_range(given: Mapping[str, Any], d_model: int) -> float:
    theirs = given.get("initializer_range")
    if theirs is None or theirs < 0:
        return given.get("init_range", 0.8 / math.sqrt(d_model))
    return theirs
