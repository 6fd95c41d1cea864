"""Tasks on small random models and on built circuits, as tests of discovery use them."""

import torch

from analyses import Task, discovery, induction_task, metrics, prompts
from circuits import GPT, ground_truth
from circuits.ground_truth import AT, BAY, BOS, IN, KEEP, MIND
from tests.conftest import tiny, tiny_tokens

CLEAN, CORRUPTED = tiny_tokens(batch=3, pos=6), tiny_tokens(batch=3, pos=6, seed=5)
DIFFERENCE = metrics.logit_difference(torch.tensor([3, 1, 4]), torch.tensor([5, 9, 2]))
SMALL = {"n_heads": 2, "d_head": 4, "d_model": 8}
WITH_MLPS = {**SMALL, "normalization_type": "LN", "d_mlp": 7, "act_fn": "gelu",
             "positional_embedding_type": "standard"}  # fmt: skip
SIZE = {"d_vocab": 12, "n_ctx": 16}
SHARP = {"sharpness": 40.0}  # so that slopes are not lost in rounding, see the test of saturation
BUILT = ("induction", "disguised", "pointer_induction", "virtual_head", "skip_trigram_bug",
         "smeared_induction", "among_distractors")  # fmt: skip
METHODS = {
    "exact": discovery.exact,
    "EAP": discovery.eap,
    "EAP-IG inputs": discovery.eap_ig,
    "EAP-IG activations": lambda task: discovery.eap_ig(task, 8, along="activations"),
    "ACDC": lambda task: discovery.acdc_scores(task, [0.1]),
}


def task_of(model: GPT, replace="run", metric=DIFFERENCE, **how) -> Task:
    return Task(model, CLEAN, CORRUPTED, metric, replace=replace, **how)


def linear_model() -> GPT:
    """Attention is always uniform, without norm and MLP, so the logits are linear in the tokens."""
    model = tiny(**{**SMALL, "normalization_type": None, "n_layers": 3})
    with torch.no_grad():
        for block in model.blocks:
            for weight in (block.attn.W_Q, block.attn.b_Q):
                weight.zero_()
    return model


def on_repeats(model: GPT) -> Task:
    return induction_task(model, 7)


def on_threes(model: GPT) -> Task:
    """A B C A B against the next tokens: the virtual head predicts the token two positions back."""
    clean = prompts.random_tokens(model, 3, times=2, batch=6)[:, :-1]
    other = (clean + 1) % model.cfg.d_vocab
    return Task(model, clean, other, metrics.logit_difference(clean[:, 3], other[:, 3]))


def on_skip_trigrams(model: GPT) -> Task:
    """keep ... in -> mind, against two tokens that nothing reads."""
    clean = torch.tensor([[BOS, KEEP, filler, last] for filler in (9, 10, 11) for last in (IN, AT)])
    other = clean.clone()
    other[:, [1, 3]] = torch.tensor([8, 7])
    right = torch.tensor([MIND, BAY] * 3)
    return Task(model, clean, other, metrics.logit_difference(right, other[:, 3]))


def built(name: str) -> tuple[Task, tuple[tuple[str, str], ...]]:
    induction = ground_truth.Induction(**SIZE, **SHARP).edges
    match name:
        case "induction":
            return on_repeats(ground_truth.Induction(**SIZE, **SHARP).model), induction
        case "disguised":
            model = ground_truth.rotated(ground_truth.Induction(**SIZE, **SHARP).model)
            return on_repeats(ground_truth.regauged(model)), induction
        case "pointer_induction":
            model = ground_truth.PointerInduction(**SIZE, **SHARP).model
            return on_repeats(model), ground_truth.PointerInduction(**SIZE, **SHARP).edges
        case "virtual_head":
            model = ground_truth.VirtualHead(**SIZE).model
            return on_threes(model), ground_truth.VirtualHead(**SIZE).edges
        case "skip_trigram_bug":
            answers = ground_truth.SkipTrigramBug(**SIZE, **SHARP)
            model = answers.model
            return on_skip_trigrams(model), answers.edges
        case "smeared_induction":
            model = ground_truth.SmearedInduction(**SIZE, **SHARP).model
            return on_repeats(model), ground_truth.SmearedInduction(**SIZE, **SHARP).edges
    answers = ground_truth.InductionAmongDistractors(**SIZE, **SHARP, distractors=3)
    model = answers.model
    return on_repeats(model), answers.edges


def random_task(seed: int, n_heads: int = 3) -> Task:
    model = tiny(seed, n_heads=n_heads, d_head=4, d_model=12)
    clean, other = (tiny_tokens(12, 5, seed=1000 * i + seed) for i in (1, 2))
    right, wrong = tiny_tokens(2, 12, seed=seed)
    return Task(model, clean, other, metrics.logit_difference(right, wrong))
