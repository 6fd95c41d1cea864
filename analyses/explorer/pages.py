"""One self-contained HTML page that shows heads: their patterns, text coloured by attention, and
the logits that each head adds, token by token. The page needs no network and no server.

It does for any GPT what the interactive figures of the framework paper do (I1, I2; PySvelte,
CircuitsVis).
"""

import base64
import html
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from analyses import plots
from analyses.heads import attention, logit_effects, patterns
from analyses.labelled import to_numpy, words_of
from analyses.plots.templates import render
from circuits.files import write
from circuits.model import GPT, checked_tokens

STEPS = 255
"Attention is kept in 8 bits: a value differs from the computed one by at most half a step, 1/510."
SIGNED_STEPS = 127
"Logit effects are kept in 8 bits, on both sides of 0. An error is at most 1/254 of the largest."
ROLES = {
    "induction": "looks at the token that followed the same token earlier",
    "previous token": "looks one token back",
    "duplicate token": "looks at earlier copies of the token",
    "current token": "looks at the token itself",
    "first token": "looks at the first token",
    "-": f"none of these takes more than {attention.THRESHOLD} of its attention",
}
"The meaning of each role of `attention.taxonomy`, in the words of the page."
FRAME = (
    '<iframe sandbox="allow-scripts" title="attention heads" loading="lazy" '
    'style="width:100%;height:820px;border:0" srcdoc="{}"></iframe>'
)


@dataclass(frozen=True)
class Page:
    """A page that can be saved. A notebook shows it in a frame of fixed height."""

    html: str = field(repr=False)

    def save(self, path: str | Path) -> Path:
        """Write the page to a file, UTF-8, and return its path; the folder must exist."""
        write(path, self.html)
        return Path(path)

    def _repr_html_(self) -> str:
        return FRAME.format(html.escape(self.html))


def page(model: GPT, text_or_tokens: str | Int[Tensor, "*batch pos"], title: str = "") -> Page:
    """The page of all heads on one text, or on one row of tokens.

    It holds the patterns and the value-weighted patterns of every head, in [0, 1], and its logit
    effects, in logits, all in 8 bits. ValueError for a model without heads, text longer than its
    context, fewer than two tokens, several rows, or text for a model without a tokenizer.
    """
    tokens = _row(model, text_or_tokens)
    seen = torch.from_numpy(patterns.capture(model, tokens).values).flatten(1, 2)
    effects = torch.from_numpy(logit_effects.by_source(model, tokens).values).flatten(0, 1)
    largest = effects.abs().amax((-2, -1))
    parts = [
        *(_attention_bytes(view) for view in seen),
        _signed_bytes(effects, largest),
    ]
    data = {
        "title": title or f"{model.cfg.n_layers} layers x {model.cfg.n_heads} heads",
        "tokens": _words(model, tokens),
        "words": model.tokenizer is not None,
        "threshold": attention.THRESHOLD,
        "roles": {
            role: {"colour": colour, "means": ROLES[role]}
            for role, colour in plots.ROLE_COLOURS.items()
        },
        "heads": [
            {**head, "largest": _short(most), "effects": [_short(x) for x in row]}
            for head, most, row in zip(
                _heads(model), largest.tolist(), effects.sum(-1).tolist(), strict=True
            )
        ],
        "steps": [STEPS, SIGNED_STEPS],
        "packed": packed(np.stack(parts)),
    }
    return Page(render("analyses.explorer", "explorer.html", data=data))


def packed(values: UInt8[np.ndarray, "kind head dest src"]) -> str:
    """The lower triangles of an array, row by row, compressed (zlib), in base64."""
    rows, columns = np.tril_indices(values.shape[-1])
    raw = np.ascontiguousarray(values[..., rows, columns]).tobytes()
    return base64.b64encode(zlib.compress(raw, 9)).decode("ascii")


def unpacked(text: str, heads: int, pos: int) -> UInt8[np.ndarray, "kind head dest src"]:
    """The array that `packed` packed, with 0 above the diagonals."""
    rows, columns = np.tril_indices(pos)
    raw = np.frombuffer(zlib.decompress(base64.b64decode(text)), np.uint8)
    values = np.zeros((raw.size // (heads * rows.size), heads, pos, pos), np.uint8)
    values[..., rows, columns] = raw.reshape(-1, heads, rows.size)
    return values


def _row(model: GPT, given: str | Tensor) -> Int[Tensor, "1 pos"]:
    if model.cfg.n_layers == 0:
        raise ValueError("there is nothing to explore: the model has 0 layers, so no heads")
    if isinstance(given, str) and model.tokenizer is None:
        raise ValueError("the model has no tokenizer and reads no text: give it tokens, [pos]")
    tokens = model.to_tokens(given) if isinstance(given, str) else given
    tokens = checked_tokens(tokens.to(model.W_E.device), model.cfg)
    if len(tokens) != 1 or tokens.shape[1] < 2:
        raise ValueError(f"wanted one row of two or more tokens, got {list(tokens.shape)}")
    return tokens


def _attention_bytes(values: Float[Tensor, "head dest src"]) -> UInt8[np.ndarray, "head dest src"]:
    return to_numpy((values.float() * STEPS).round().clamp(0, STEPS).to(torch.uint8))


def _signed_bytes(
    values: Float[Tensor, "head dest src"], largest: Float[Tensor, " head"]
) -> UInt8[np.ndarray, "head dest src"]:
    share = values / largest.clamp(min=1e-30)[:, None, None]
    return to_numpy(((share * SIGNED_STEPS).round() + 128).to(torch.uint8))


def _words(model: GPT, tokens: Int[Tensor, "1 pos"]) -> list[str]:
    return [plots.show_token(word) or "∅" for word in words_of(model, tokens)]


def _heads(model: GPT) -> list[dict[str, Any]]:
    scores = attention.taxonomy(model).stack(both=("layer", "head"))
    return [
        {
            "label": str(one.label.values),
            "layer": int(one.layer),
            "role": str(one.role.values),
            "scores": {
                str(name): round(float(score), 2)
                for name, score in zip(one.behaviour.values, one.values, strict=True)
            },
        }
        for one in (scores.isel(both=i) for i in range(scores.both.size))
    ]


def _short(value: float) -> float:
    """Round a number to four digits: the page shows fewer."""
    return float(f"{value:.4g}")
