"""GPTConfig: everything that shapes a GPT, checked when it is made, and its JSON form."""

import difflib
import json
import sys
from dataclasses import asdict, dataclass, fields
from typing import Any

ACTIVATIONS = ("relu", "gelu", "gelu_new", "silu", "solu", "solu_ln")
DIRECTIONS = ("causal", "bidirectional")
NORMALIZATIONS = (None, "LN", "LNPre", "RMS", "RMSPre")
SINUSOIDS = ("sinusoid_base", "sinusoid_scale")
ROTARY = ("rotary_dim", "rotary_base", "rotary_adjacent_pairs")
MLP_KINDS = ("gated_mlp", "parallel_attn_mlp")
POSITIONS = ("standard", "sinusoidal", "shortformer", "shortformer_sinusoidal", "rotary", "none")


@dataclass(frozen=True, kw_only=True)
class GPTConfig:
    """The sizes and parts of a GPT, with TransformerLens's field names.

    ValueError for a model that cannot be built. TypeError for a field that does not exist; it names
    the nearest field.
    """

    n_layers: int
    "0 is allowed: embed, then unembed, the bigram model of the framework paper."
    d_model: int
    n_heads: int
    d_head: int
    "Any size: n_heads * d_head may differ from d_model."
    d_vocab: int
    n_ctx: int
    d_mlp: int | None = None
    "The number of neurons per MLP; None makes the model attention-only."
    act_fn: str | None = None
    """relu, gelu, gelu_new, silu, solu (x softmax(x)) or solu_ln (solu and then a norm). Required
    with MLPs, and None without."""
    normalization_type: str | None = "LN"
    "LN and RMS have a learned gain (LN also a bias), LNPre and RMSPre have none, None is no norm."
    positional_embedding_type: str = "standard"
    """standard and sinusoidal add positions to the residual stream, shortformer and
    shortformer_sinusoidal to the inputs of W_Q and W_K only; sinusoids are not learned. rotary adds
    nothing: it turns queries and keys by angles that grow with the position (Su et al. 2021)."""
    sinusoid_base: float | None = None
    "The longest wavelength over 2 pi, only for sinusoidal positions; None means 10,000."
    sinusoid_scale: float | None = None
    "The amplitude of the sinusoids, only for sinusoidal positions; None means 1."
    rotary_dim: int | None = None
    "The number of dims of each q and k that are turned, only for rotary; None means d_head."
    rotary_base: float | None = None
    "The longest wavelength over 2 pi, about, only for rotary positions; None means 10,000."
    rotary_adjacent_pairs: bool = False
    """Whether dims 0 and 1, 2 and 3, ... are turned together as in GPT-J, or dim i and dim i +
    rotary_dim / 2 as in GPT-NeoX; only for rotary."""
    gated_mlp: bool = False
    "Each neuron is act(gate) times a second, linear read: act(x W_gate) * (x W_in) (Shazeer 2020)."
    parallel_attn_mlp: bool = False
    "The MLP of a block reads the same stream as the heads, not the stream after the heads."
    bias: bool = True
    "Whether the model has b_Q, b_K, b_V, b_O, b_in, b_out, b_U and the LN biases."
    smeared_keys: bool = False
    "Each key is mixed with the key before it: Olsson et al. 2022, Argument 2."
    attn_scale: float | None = None
    "The divisor of attention scores; None means sqrt(d_head)."
    attention_dir: str = "causal"
    "causal: a token sees itself and earlier tokens; bidirectional: a token sees all tokens."
    d_vocab_out: int | None = None
    "The number of logits at each position; None means d_vocab."
    eps: float = 1e-5
    "Added to the variance in every norm."
    init_range: float = 0.02
    "The standard deviation of weight matrices at initialisation; biases are 0 then, gains 1."
    embed_init_range: float | None = None
    "The standard deviation of W_E at initialisation; None means init_range."
    seed: int = 0
    "The seed of the initialisation, which has its own random generator."

    def __new__(cls, *_: Any, **given: Any) -> "GPTConfig":
        known = [field.name for field in fields(cls)]
        for name in given.keys() - set(known):
            near = difflib.get_close_matches(name, known, 1)
            hint = _ELSEWHERE.get(name) or (f"did you mean {near[0]!r}?" if near else "")
            raise TypeError(f"GPTConfig has no field {name!r}; {hint} The fields are {known}")
        return super().__new__(cls)

    def __post_init__(self) -> None:
        least = {"n_layers": 0, "d_model": 1, "n_heads": 1, "d_head": 1, "d_vocab": 1, "n_ctx": 1}
        for name, bound in least.items():
            value = getattr(self, name)
            if not _is_whole(value, bound):
                raise ValueError(f"{name} must be a whole number >= {bound}, got {value!r}")
        if not (_is_whole(self.seed, -(2**63)) and self.seed < 2**63):
            raise ValueError(f"seed must be a whole number of 64 bits, got {self.seed!r}")
        for name in ("bias", "smeared_keys", "rotary_adjacent_pairs", *MLP_KINDS):
            if not isinstance(getattr(self, name), bool):
                raise ValueError(f"{name} must be True or False, got {getattr(self, name)!r}")
        positive = ("attn_scale", "eps", "init_range", "embed_init_range", "rotary_base")
        for name in (*positive, *SINUSOIDS):
            value = getattr(self, name)
            may_be_none = name not in ("eps", "init_range")
            if not (_is_positive(value) or (value is None and may_be_none)):
                raise ValueError(f"{name} must be a number > 0, got {value!r}")
        if self.d_vocab_out is not None and not _is_whole(self.d_vocab_out, 1):
            raise ValueError(
                f"d_vocab_out must be a whole number >= 1, or None for d_vocab, "
                f"got {self.d_vocab_out!r}"
            )
        self._check_choice("attention_dir", DIRECTIONS)
        self._check_choice("normalization_type", NORMALIZATIONS)
        self._check_choice("positional_embedding_type", POSITIONS)
        if self.d_mlp is None and self.act_fn is not None:
            raise ValueError(
                f"act_fn={self.act_fn!r} would do nothing: d_mlp is None, the model has no MLP"
            )
        if self.d_mlp is not None:
            if not _is_whole(self.d_mlp, 1):
                raise ValueError(
                    f"d_mlp must be a whole number >= 1, or None for attention-only, "
                    f"got {self.d_mlp!r}"
                )
            self._check_choice("act_fn", ACTIVATIONS)
        self._check_positions()
        for name in MLP_KINDS:
            if getattr(self, name) and self.d_mlp is None:
                raise ValueError(f"{name}=True would do nothing: the model has no MLP")
        if self.gated_mlp and self.act_fn == "solu_ln":
            raise ValueError("gated_mlp=True and act_fn='solu_ln' cannot be combined: the norm has "
                             "no place in a gated MLP")  # fmt: skip

    def _check_positions(self) -> None:
        acts = {**dict.fromkeys(SINUSOIDS, (self.sinusoidal, "has no sinusoids")),
                **dict.fromkeys(ROTARY, (self.rotary, "turns no queries and keys"))}  # fmt: skip
        for name, (does, why) in acts.items():
            value = getattr(self, name)
            if not does and value not in (None, False):
                raise ValueError(
                    f"{name}={value!r} would do nothing: positional_embedding_type is "
                    f"{self.positional_embedding_type!r}, which {why}"
                )
        if self.rotary and not (_is_whole(self.turned_dims, 2) and self.turned_dims % 2 == 0
                                and self.turned_dims <= self.d_head):  # fmt: skip
            raise ValueError(
                f"rotary_dim must be an even number of dims, 2 to d_head={self.d_head}, and None "
                f"means d_head; got {self.rotary_dim!r}"
            )
        if self.rotary and self.smeared_keys:
            raise ValueError("smeared_keys=True and rotary positions cannot be combined: a smeared "
                             "key would be a mix of two angles")  # fmt: skip

    def _check_choice(self, name: str, choices: tuple[str | None, ...]) -> None:
        if getattr(self, name) not in choices:
            raise ValueError(f"{name}={getattr(self, name)!r} is not supported; choose {choices}")

    @property
    def attn_only(self) -> bool:
        """True when no block has an MLP."""
        return self.d_mlp is None

    @property
    def causal(self) -> bool:
        """True when no token sees a later token."""
        return self.attention_dir == "causal"

    @property
    def device(self) -> None:
        """None: the model has the device and the dtype. TransformerLens's tools read these two
        and n_key_value_heads from a config."""

    @property
    def dtype(self) -> None:
        """None: see device."""

    @property
    def n_key_value_heads(self) -> None:
        """None: every head has its own keys and values."""

    @property
    def sinusoidal(self) -> bool:
        """True when positions are fixed sinusoids instead of learned vectors."""
        return "sinusoidal" in self.positional_embedding_type

    @property
    def shortformer(self) -> bool:
        """True when positions enter the inputs of W_Q and W_K and never the residual stream."""
        return "shortformer" in self.positional_embedding_type

    @property
    def rotary(self) -> bool:
        """True when positions turn queries and keys, and are added to nothing."""
        return self.positional_embedding_type == "rotary"

    @property
    def turned_dims(self) -> int:
        """The number of dims of each q and k that rotary positions turn."""
        return self.d_head if self.rotary_dim is None else self.rotary_dim

    @property
    def embeds_positions(self) -> bool:
        """True when the model has W_pos, an embedding of each position."""
        return self.positional_embedding_type not in ("none", "rotary")

    @property
    def positions_in_stream(self) -> bool:
        """True when positions are added to the embedding at the start of the residual stream."""
        return self.embeds_positions and not self.shortformer

    def to_json(self) -> str:
        """The config as JSON text; `from_json` gives an equal config back."""
        return json.dumps(asdict(self), indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str) -> "GPTConfig":
        """The config written by `to_json`; every check of the constructor applies."""
        return cls(**json.loads(text))


def _is_whole(value: Any, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _is_positive(value: Any) -> bool:
    if not isinstance(value, int | float) or isinstance(value, bool):
        return False
    return 0 < value <= sys.float_info.max


def check_causal(cfg: Any, what: str) -> None:
    """ValueError if tokens see later tokens by this config, a GPTConfig or TransformerLens's.
    `what` names the function for the message."""
    direction = getattr(cfg, "attention_dir", "causal")
    if direction != "causal":
        raise ValueError(f"{what} needs causal attention, and attention_dir={direction!r}")


def check_predicts(cfg: Any, what: str) -> None:
    """ValueError unless the logits are of the next token; `what` names the function that needs
    it."""
    check_causal(cfg, what)
    out = getattr(cfg, "d_vocab_out", None)
    if out not in (None, cfg.d_vocab):
        raise ValueError(
            f"{what} needs logits of the next token, and d_vocab_out={out} is not "
            f"d_vocab={cfg.d_vocab}"
        )


_ELSEWHERE = {
    "attn_only": "leave d_mlp out and the model is attention-only.",
    "device": "move the model with model.to(device).",
    "dtype": "convert the model with model.to(dtype).",
    "use_attn_result": "hook_result fires whenever it is listened to.",
    "use_split_qkv_input": "q_input, k_input and v_input always fire when a hook is attached.",
    "use_attn_in": "attach hooks to q_input, k_input and v_input.",
    "init_weights": "weights are always initialised.",
}
