"""HookedTransformer: a GPT with the constructors and arguments of TransformerLens 2 and 3."""

import warnings
from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from circuits.hooked_transformer.config import OURS, HookedTransformerConfig
from circuits.hooked_transformer.hooking import HooksAsBefore
from circuits.hooked_transformer.instead import INSTEAD, missing
from circuits.hooked_transformer.parts import become_parts
from circuits.hooked_transformer.refactoring import refactor_heads
from circuits.hooked_transformer.text import Side, SpeaksAsBefore, drawn_seed
from circuits.hooked_transformer.utils import lm_cross_entropy_loss
from circuits.hooked_transformer.weights import WeightsAsBefore
from circuits.io import from_hugging_face, load
from circuits.model import GPT, Ids, KeyValueCache, Resid, checked_tokens, is_text, process_weights

_OTHERWISE = {
    "tokens": "take the logits and write model.loss_fn(logits, tokens)",
    "shortformer_pos_embed": "the model adds its positions itself",
    "checkpoint_index": "models that ship have analyses.history.dynamics.history(name)",
    "checkpoint_value": "models that ship have analyses.history.dynamics.history(name)",
    "n_devices": "a model lies on one device",
    "first_n_layers": "write model(tokens, stop_at_layer=n)",
}
"Arguments of TransformerLens that raise ValueError here, each with the way out."


class Output(NamedTuple):
    """The result of a run with return_type='both'."""

    logits: Float[Tensor, "batch pos d_vocab"]
    loss: Float[Tensor, "*batch_pos"]


class HookedTransformer(HooksAsBefore, WeightsAsBefore, SpeaksAsBefore, GPT):
    """A GPT of a HookedTransformerConfig (or a GPTConfig, or a dict of fields), in the config's
    dtype and, with `move_to_device`, on the config's device (by default the CPU).

    `tokenizer` is a fast tokenizer of transformers, or a Vocabulary. Without it the tokenizer
    cfg.tokenizer_name is fetched when a text first needs it. Texts of different lengths are padded
    on the `default_padding_side`. Without a seed in the config a seed is drawn and put in cfg.seed.
    """

    def __init__(
        self,
        cfg: Any,
        tokenizer: Any = None,
        move_to_device: bool = True,
        default_padding_side: Side | None = None,
    ) -> None:
        wanted = HookedTransformerConfig.unwrap(cfg)
        seed = drawn_seed() if wanted.seed is None else wanted.seed
        super().__init__(wanted.made(seed=seed))
        self.set_tokenizer(tokenizer, default_padding_side)
        become_parts(self, self.cfg)
        self.to(wanted.device if move_to_device else self.W_E.device, wanted.dtype)

    @classmethod
    def from_pretrained(
        cls,
        model_name: str,
        fold_ln: bool = True,
        center_writing_weights: bool = True,
        center_unembed: bool = True,
        refactor_factored_attn_matrices: bool = False,
        checkpoint_index: int | None = None,
        checkpoint_value: int | None = None,
        hf_model: Any = None,
        device: str | torch.device | None = None,
        n_devices: int = 1,
        tokenizer: Any = None,
        move_to_device: bool = True,
        fold_value_biases: bool = True,
        default_prepend_bos: bool | None = None,
        default_padding_side: Side | None = None,
        dtype: str | torch.dtype = "float32",
        first_n_layers: int | None = None,
    ) -> "HookedTransformer":
        """A model by name (see circuits.io.load), or `hf_model`, a loaded model of transformers; in
        eval mode. The name of a model that ships with this package means this model.

        The flags simplify the weights and keep the log-probabilities, see process_weights_.
        """
        _refuse(checkpoint_index=checkpoint_index, checkpoint_value=checkpoint_value,
                n_devices=None if n_devices == 1 else n_devices,
                first_n_layers=first_n_layers)  # fmt: skip
        known = load(model_name) if hf_model is None else from_hugging_face(hf_model)
        bos = True if default_prepend_bos is None else default_prepend_bos
        cfg = HookedTransformerConfig(**vars(known.cfg), model_name=model_name, device=device,
                                      dtype=dtype, default_prepend_bos=bos)  # fmt: skip
        speech = known.tokenizer if tokenizer is None else tokenizer
        model = cls(cfg, speech, move_to_device, default_padding_side)
        model.load_and_process_state_dict(
            known.state_dict(),
            fold_ln,
            center_writing_weights,
            center_unembed,
            fold_value_biases,
            refactor_factored_attn_matrices,
        )
        return model.eval()

    @classmethod
    def from_pretrained_no_processing(cls, model_name: str, **options: Any) -> "HookedTransformer":
        """A model by name with its trained weights; options as in from_pretrained."""
        flags = dict.fromkeys(
            ("fold_ln", "center_writing_weights", "center_unembed", "fold_value_biases"), False
        )
        return cls.from_pretrained(model_name, **{**flags, **options})

    def load_state_dict(
        self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False
    ) -> Any:
        """Copy these weights by name. TransformerLens's mask buffers are skipped. RuntimeError for
        a weight that is missing, unknown or of another shape."""
        masks = (".attn.mask", ".attn.IGNORE")
        weights = {name: w for name, w in state_dict.items() if not name.endswith(masks)}
        return super().load_state_dict(weights, strict=strict, assign=assign)

    def load_and_process_state_dict(
        self,
        state_dict: Mapping[str, Tensor],
        fold_ln: bool = True,
        center_writing_weights: bool = True,
        center_unembed: bool = True,
        fold_value_biases: bool = True,
        refactor_factored_attn_matrices: bool = False,
    ) -> None:
        """Copy these weights, then simplify them: see process_weights_."""
        self.load_state_dict(state_dict)
        self.process_weights_(
            fold_ln,
            center_writing_weights,
            center_unembed,
            refactor_factored_attn_matrices,
            fold_value_biases,
        )

    def process_weights_(
        self,
        fold_ln: bool = True,
        center_writing_weights: bool = True,
        center_unembed: bool = True,
        refactor_factored_attn_matrices: bool = False,
        fold_value_biases: bool = True,
    ) -> None:
        """Simplify the weights in place and keep the log-probabilities, as circuits.model.folding
        does: LN becomes LNPre. A step that this architecture does not allow is left out, with a
        warning. `refactor_factored_attn_matrices`: see refactor_heads. Hooks stay. The parameters
        are new tensors: an optimizer must be made again."""
        wanted = {"fold_ln": fold_ln, "center_writing_weights": center_writing_weights,
                  "center_unembed": center_unembed,
                  "fold_value_biases": fold_value_biases}  # fmt: skip
        model = GPT(self.cfg).to(self.W_E).train(self.training)
        model.load_state_dict(self.state_dict())
        for step in (step for step, on in wanted.items() if on):
            try:
                model = process_weights(model, **{name: name == step for name in wanted})
            except ValueError as error:
                warnings.warn(f"{step} is left out: {error}", stacklevel=2)
        if refactor_factored_attn_matrices:
            refactor_heads(model)
        self._become(model)

    def forward(
        self,
        input: Ids | Resid | str,
        return_type: Literal["logits", "loss", "both"] | None = "logits",
        loss_per_token: bool = False,
        prepend_bos: bool | None = None,
        padding_side: Side | None = None,
        start_at_layer: int | None = None,
        tokens: Any = None,
        shortformer_pos_embed: Any = None,
        attention_mask: Shaped[Tensor, "*batch pos"] | None = None,
        stop_at_layer: int | None = None,
        past_kv_cache: KeyValueCache | None = None,
    ) -> Any:
        """See GPT.forward. Texts of different lengths are padded on the padding side, and the pads
        are masked. In tokens, <|endoftext|> at the padding side counts as padding (see mask_of) and
        is masked on the left side, or with a past_kv_cache. Negative tokens count from the end of
        the vocabulary."""
        _refuse(tokens=tokens, shortformer_pos_embed=shortformer_pos_embed)
        begun = past_kv_cache is not None and past_kv_cache.n > 0
        if not isinstance(input, Tensor) and not is_text(input):
            input = checked_tokens(input, self.cfg)
        if not isinstance(input, Tensor):
            if attention_mask is not None:
                raise ValueError("attention_mask is for tokens: pads of texts are masked anyway")
            bos = False if begun and prepend_bos is None else prepend_bos
            input, attention_mask = self.read(input, bos, padding_side)  # type: ignore[arg-type]
        elif attention_mask is None and start_at_layer is None:
            side = padding_side or self.default_padding_side
            if past_kv_cache is not None or side == "left":
                attention_mask = self.mask_of(input, prepend_bos, side, first=not begun)
        result = super().forward(
            input,
            return_type,
            loss_per_token=loss_per_token,
            start_at_layer=start_at_layer,
            stop_at_layer=stop_at_layer,
            past_kv_cache=past_kv_cache,
            attention_mask=attention_mask,
        )
        return Output(*result) if isinstance(result, tuple) else result

    def _tokens(self, input: Any, bos: bool) -> Int[Tensor, "batch pos"]:
        if isinstance(input, Tensor) and not input.is_floating_point():
            input = input.where(input >= 0, input + self.cfg.d_vocab)
        return super()._tokens(input, bos)

    def loss_fn(
        self,
        logits: Float[Tensor, "batch pos d_vocab"],
        tokens: Int[Tensor, "batch pos"],
        attention_mask: Int[Tensor, "batch pos"] | None = None,
        per_token: bool = False,
    ) -> Float[Tensor, "*batch_pos"]:
        """Next-token loss in nats of these logits: see utils.lm_cross_entropy_loss."""
        return lm_cross_entropy_loss(logits, tokens.to(logits.device), attention_mask, per_token)

    def mps(self) -> "HookedTransformer":
        """The model itself, moved to Apple's GPU."""
        return self.to("mps")

    @property
    def n_params_total(self) -> int:
        """The number of all parameters."""
        return sum(weight.numel() for weight in self.parameters())

    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> "HookedTransformer":
        super()._apply(fn, recurse)
        self.cfg.become(device=str(self.W_E.device), dtype=self.W_E.dtype)
        return self

    def _become(self, model: GPT) -> None:
        """Take the modules of another model and attach the present hooks to them."""
        before = self.hook_dict
        for name, part in model.named_children():
            setattr(self, name, part)
        self.cfg.become(**{name: getattr(model.cfg, name) for name in OURS})
        become_parts(self, self.cfg)
        self.name_hooks()
        for name, point in self.hook_dict.items():
            old = before[name]
            point.fwd_hooks, point.bwd_hooks, point.ctx = old.fwd_hooks, old.bwd_hooks, old.ctx

    def __getattr__(self, name: str) -> Any:
        if name in INSTEAD["HookedTransformer"]:
            raise missing("HookedTransformer", name)
        return super().__getattr__(name)


def _refuse(**given: Any) -> None:
    """ValueError for an argument that is not supported, with the way out."""
    for name, value in given.items():
        if value is not None and value is not False:
            raise ValueError(f"{name} is not supported: {_OTHERWISE[name]}")
