"""Tiny random models that tests share. Weights are spread wide, so that no branch is nearly off."""

import os
from collections.abc import Iterator

import matplotlib
import matplotlib.pyplot as plt
import pytest
import torch

from circuits import GPT, GPTConfig, save
from circuits.data import train_tokenizer

matplotlib.use("agg")
torch.set_num_threads(1)  # tiny tensors: a second thread only gets in the way
os.environ["OMP_NUM_THREADS"] = "1"  # and in that of what tests start, notebooks and commands

TINY = {"n_layers": 2, "d_model": 12, "n_heads": 3, "d_head": 5, "d_vocab": 29, "n_ctx": 16}


def tiny(seed: int = 0, dtype: torch.dtype = torch.float64, **fields) -> GPT:
    """A tiny GPT whose every parameter, also gains and biases, is random and matters."""
    model = GPT(GPTConfig(**{**TINY, **fields})).to(dtype).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            noise = torch.randn(weight.shape, generator=generator, dtype=torch.float64)
            centre = 1.0 if name.endswith(".w") else 0.0
            weight.copy_(centre + 0.4 * noise)
    return model


def tiny_tokens(batch: int = 3, pos: int = 7, d_vocab: int = 29, seed: int = 1) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, d_vocab, (batch, pos), generator=generator)


NORMS = (None, "LN", "LNPre", "RMS", "RMSPre")
POSITIONS = ("shortformer", "standard", "none", "shortformer_sinusoidal", "sinusoidal")
OTHERS = (
    {},
    {"d_mlp": 11, "act_fn": "gelu"},
    {"bias": False, "smeared_keys": True},
    {"d_mlp": 7, "act_fn": "relu", "bias": False, "smeared_keys": True},
    {"attn_scale": 1.5, "d_mlp": 9, "act_fn": "silu"},
    {"n_layers": 0},
    {"n_layers": 3, "d_mlp": 8, "act_fn": "solu_ln"},
    {"d_mlp": 6, "act_fn": "solu"},
    {"d_mlp": 11, "act_fn": "gelu_new"},
    {"bias": False, "smeared_keys": True},
)
VARIANTS = [
    {"normalization_type": NORMS[i % 5], "positional_embedding_type": POSITIONS[(i + i // 5) % 5],
     **OTHERS[i]}
    for i in range(10)
]  # fmt: skip
"Every norm and every kind of positions twice, and the other fields in turn."
ROTARY = [
    {"normalization_type": "LN", "positional_embedding_type": "rotary", "d_head": 6,
     "rotary_dim": 4, "parallel_attn_mlp": True, "d_mlp": 7, "act_fn": "gelu", "rotary_base": 50.0},
    {"normalization_type": "RMS", "positional_embedding_type": "rotary", "d_head": 4,
     "rotary_adjacent_pairs": True, "bias": False, "n_layers": 3, "d_mlp": 7, "act_fn": "silu",
     "gated_mlp": True},
]  # fmt: skip
"Pythia's kind, and Llama's kind with GPT-J's pairs of dims."
VARIANTS += ROTARY
DEPTHS = [
    {"normalization_type": "LN", "positional_embedding_type": "standard", "n_layers": 1},
    {"normalization_type": "LN", "positional_embedding_type": "shortformer", "n_layers": 4,
     "n_heads": 2, "d_mlp": 7, "act_fn": "relu", "smeared_keys": True},
]  # fmt: skip
"The depths that are not among them, for what must hold at any depth."

OTHER_TASKS = [
    {"attention_dir": "bidirectional", "positional_embedding_type": "shortformer"},
    {"attention_dir": "bidirectional", "d_vocab_out": 5, "d_mlp": 7, "act_fn": "solu_ln",
     "smeared_keys": True},
    {"d_vocab_out": 31, "normalization_type": None, "bias": False},
]  # fmt: skip
"Models that do not predict the next token."


def variant_name(fields: dict) -> str:
    return "-".join(str(value) for value in fields.values())


@pytest.fixture(params=VARIANTS, ids=variant_name)
def variant(request: pytest.FixtureRequest) -> GPT:
    """A tiny model of each architecture, in float64."""
    return tiny(**request.param)


@pytest.fixture(params=[*VARIANTS, *DEPTHS], ids=variant_name)
def variant_of_any_depth(request: pytest.FixtureRequest) -> GPT:
    """A tiny model of each architecture and of each depth from 0 to 4, in float64."""
    return tiny(**request.param)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests first, so that the processes end together."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.fixture(autouse=True)
def no_figure_stays_open() -> Iterator[None]:
    """Close what a test drew."""
    yield
    plt.close("all")


WORDS = "when mary and john went to the shop john gave flowers to mary while others waited there"


@pytest.fixture(scope="session")
def untrained() -> GPT:
    """A model with a tokenizer and room for the prompts of figures, as initialised."""
    vocabulary = train_tokenizer([f" {word}" * 9 for word in WORDS.split()] * 3, 320)
    shape = {"n_layers": 2, "d_model": 32, "n_heads": 4, "d_head": 8, "n_ctx": 64}
    return GPT(GPTConfig(**shape, d_vocab=vocabulary.size), vocabulary).eval()


@pytest.fixture(scope="session")
def silent(tmp_path_factory) -> str:
    """The folder of a tiny model without a tokenizer and without a history."""
    at = tmp_path_factory.mktemp("models") / "<model>"
    save(tiny(n_ctx=64).float(), at)
    return str(at)
