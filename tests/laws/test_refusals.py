"""Errors of the algebra and the analyses: each says what was given, wanted, and what exists."""

import copy
import math
import re

import pytest
import torch

from analyses import (
    attention,
    bandwidth,
    discovery,
    importance,
    induction_task,
    metrics,
    patterns,
    prompts,
)
from circuits import FactoredMatrix, algebra, composition, paths, residual, scores
from circuits.decomposition import check_run
from circuits.model import Head, Path
from tests.conftest import tiny, tiny_tokens

MODEL, TOKENS = tiny(n_layers=3), tiny_tokens()
WITH_MLPS = tiny(d_mlp=5, act_fn="relu")
SHORT = tiny(positional_embedding_type="shortformer")
_, CACHE = MODEL.run_with_cache(TOKENS)
_, FEW = MODEL.run_with_cache(TOKENS, names_filter="blocks.0.attn.hook_z")
_, FLAT = MODEL.run_with_cache(TOKENS[:1], remove_batch_dim=True)
BROKEN = tiny(n_layers=3)
with torch.no_grad():
    BROKEN.blocks[1].attn.W_K[2, 3, 4] = torch.nan
    BROKEN.blocks[2].attn.W_O[0, 0, 0] = torch.inf
INFINITE = tiny()
with torch.no_grad():
    INFINITE.blocks[1].attn.W_O[0, 0, 0] = torch.inf
    INFINITE.pos_embed.W_pos[3, 1] = torch.nan
    INFINITE.blocks[0].attn.b_Q[2, 1] = torch.nan
_, SLICED = MODEL.run_with_cache(TOKENS, pos_slice=slice(2, 5))
_, BROKEN_CACHE = BROKEN.run_with_cache(TOKENS)
NO_TOKEN = tiny()
with torch.no_grad():
    NO_TOKEN.unembed.W_U[0, 3] = torch.nan
SEVEN = torch.tensor([0, 7, 2])
SQUARE = FactoredMatrix(torch.ones(4, 2), torch.ones(2, 4))


def path(text, model=MODEL):
    return paths.path(model, text)


CASES = [
    # heads and paths
    (lambda: path("embed > L1H0 > L0H1 > logits"),
     "L1H0 cannot be read by L0H1: along a path the layers must increase, got L1H0 > L0H1"),
    (lambda: path("embed > L1H0 > L1H1 > logits"), "L1H0 cannot be read by L1H1"),
    (lambda: path("embed > L3H0 > logits"), "there is no head L3H0: the model has 3 layers of 3"),
    (lambda: path("embed > L0H9 > logits"), "there is no head L0H9"),
    (lambda: path("embed > 0.1 > logits"), "a head is named like 'L1H4' or (1, 4), got '0.1'"),
    (lambda: path("embed"), "a path is written like 'embed > L0H1 > logits', got 'embed'"),
    (lambda: path("embed > L0H1"), "a path ends in logits, MLP0 or a head's L0H1.Q, .K or .V"),
    (lambda: path("token > logits"),
     "no path to logits starts at 'token'; there are ['embed', 'pos', 'L0 bias'"),
    (lambda: path("L1 bias > L0H0 > logits"), "a path leads from earlier layers to later layers"),
    (lambda: path("embed > L2H1 > L1H0.Q"), "a path leads from earlier layers to later layers"),
    (lambda: path("bias > L2H1 > logits"), "bias is added at the end and passes no heads"),
    (lambda: path("embed > MLP0"), "there is no 'MLP0': the model is attention-only"),
    (lambda: path("MLP1 > L1H0 > logits", WITH_MLPS), "a path leads from earlier layers to later"),
    (lambda: paths.logits(MODEL, CACHE, path("embed > L1H0.Q")), "does not end in the logits"),
    (lambda: paths.value(MODEL, CACHE, Path("embed", (Head(2, 0), Head(1, 0)))),
     "along a path the layers must increase, got L2H0 > L1H0"),
    (lambda: scores.term(MODEL, CACHE, path("embed > L1H0.Q"), path("embed > L1H1.K")),
     "wanted paths to the .Q and the .K of one head"),
    (lambda: scores.by_token(MODEL, CACHE, (1, 0), dest=2, src=5),
     "a source is at or before its destination, both among 7 positions"),
    (lambda: scores.groups(MODEL, CACHE, (3, 0)), "there is no head L3H0"),
    # attention-only expansions
    (lambda: importance.by_order(WITH_MLPS, TOKENS),
     "orders count heads in attention-only models, and this one has MLPs (d_mlp=5)"),
    (lambda: importance.frozen_by_order(WITH_MLPS, TOKENS), "this one has MLPs"),
    (lambda: importance.by_layer(WITH_MLPS, TOKENS), "this one has MLPs"),
    # whose run is it
    (lambda: paths.groups(copy.deepcopy(MODEL), CACHE), "the cache is of another model's run"),
    (lambda: residual.components(WITH_MLPS, CACHE), "the cache is of another model's run"),
    (lambda: paths.virtual_pattern(WITH_MLPS, CACHE, [(0, 1), (1, 1)]), "another model's run"),
    (lambda: importance.frozen_by_order(MODEL, tiny_tokens(seed=8), CACHE),
     "the cache is of a run on other tokens, [3, 7], than these, [3, 7]"),
    (lambda: check_run(MODEL, FLAT), "the cache has no batch dim: run without remove_batch_dim"),
    # numbers that are not finite
    (lambda: algebra.full_QK(BROKEN), "W_K[1, 2, 3, 4] is nan"),
    (lambda: algebra.full_OV(BROKEN), "W_O[2, 0, 0, 0] is inf"),
    (lambda: composition.scores(BROKEN), "W_K[1, 2, 3, 4] is nan"),
    (lambda: paths.groups(BROKEN, BROKEN_CACHE),
     "not finite; so do the weights ['blocks.1.attn.W_K', 'blocks.2.attn.W_O']"),
    (lambda: residual.logit_attribution(BROKEN, BROKEN_CACHE, 3), "blocks.1.attn.W_K"),
    # virtual weights
    (lambda: algebra.virtual_weights(MODEL, "L1H0 > L0H1.K"), "L0H1.K comes before L1H0"),
    (lambda: algebra.virtual_weights(MODEL, "L1H0 > L1H1.K"), "or beside it"),
    (lambda: algebra.virtual_weights(MODEL, "embed"), "written like 'embed > L0H1 > logits'"),
    (lambda: algebra.virtual_weights(MODEL, "embed > L1H0"), "or a head's L1H0.Q, .K or .V"),
    (lambda: algebra.virtual_weights(MODEL, "MLP0 > logits"), "the model is attention-only"),
    (lambda: algebra.virtual_weights(WITH_MLPS, "MLP7 > logits"), "the model has MLP0 to MLP1"),
    (lambda: algebra.virtual_weights(SHORT, "pos > L0H0.Q"), "see positional_QK"),
    (lambda: algebra.virtual_weights(MODEL, "embed > unembed"), "there are embed, pos, heads as"),
    (lambda: algebra.virtual_OV(MODEL, []), "made of one head or more, got none"),
    (lambda: algebra.virtual_OV(MODEL, [(1, 0), (0, 0)]), "the layers must increase"),
    (lambda: algebra.composed_QK(MODEL, (1, 0), key=[(1, 2)]), "the layers must increase"),
    (lambda: algebra.neuron_reads(MODEL), "W_in"),
    (lambda: algebra.positional_QK(tiny(positional_embedding_type="none")), "has no positions"),
    # the stream and the logits
    (lambda: residual.components(MODEL, CACHE, 4), "there is no layer 4: the model has 3 layers"),
    (lambda: residual.components(MODEL, CACHE, mid=True), "there is no layer None mid"),
    (lambda: residual.through_norm(MODEL, CACHE, CACHE["embed"], 1, mid=True),
     "nothing reads the stream at mid: the model is attention-only"),
    (lambda: residual.neuron_results(MODEL, CACHE, 0), "attention-only"),
    (lambda: residual.logit_attribution(MODEL, CACHE), "give a token, a token and another against"),
    (lambda: residual.logit_attribution(MODEL, CACHE, 29), "wanted tokens from 0 to 28, got 29"),
    (lambda: residual.logit_attribution(MODEL, CACHE, TOKENS[:, :3]), "got torch.int64 [3, 3]"),
    # more heads and paths
    (lambda: algebra.virtual_OV(MODEL, "L0H1"), "expected a list of heads, got the text"),
    (lambda: paths.all(MODEL, end="L1H0"), "a path ends in logits, MLP0 or a head's L1H0.Q"),
    (lambda: paths.groups(MODEL, CACHE, end="embed"), "a path ends in logits, MLP0 or a head's"),
    (lambda: paths.all(MODEL, 7), "paths to logits pass 0 to 3 heads, got order=7"),
    (lambda: scores.read_by_token(MODEL, CACHE, "L1H0.K", 99), "there is no position 99 among 7"),
    (lambda: paths.groups(MODEL, SLICED), "the run kept some positions only"),
    (lambda: residual.components(MODEL, CACHE.to(torch.float32)), "the cache is torch.float32 on"),
    (lambda: residual.head_results(MODEL, CACHE, 7), "there is no layer 7 mid"),
    (lambda: residual.logit_attribution(MODEL, CACHE, direction=torch.ones(5).double()),
     "a direction is [d_model=12], got [5]"),
    (lambda: composition.scores(INFINITE), "W_O[1, 0, 0, 0] is inf"),
    (lambda: algebra.virtual_weights(INFINITE, "L1H0 > logits"), "W_O[1, 0, 0, 0] is inf"),
    (lambda: algebra.positional_QK(INFINITE), "W_pos[3, 1] is nan"),
    (lambda: algebra.biased_QK(INFINITE), "b_Q[0, 2, 1] is nan"),
    (lambda: FactoredMatrix(torch.tensor([[1.0], [torch.nan]]), torch.ones(1, 2)).top(1),
     "no largest entries: the product holds numbers that are not finite"),
    # products
    (lambda: SQUARE.top(17), "k must be 1 to 4 x 4, the entries of each matrix of [4, 4], got k="),
    (lambda: SQUARE + torch.ones(3), "a bias on 4 x 4 must be [4], [1 4] or [4 1], got [1, 3]"),
    (lambda: SQUARE * torch.ones(4, 4), "for products of matrices write @"),
    (lambda: SQUARE + FactoredMatrix(torch.ones(3, 2), torch.ones(2, 4)), "cannot add [4, 4] and"),
    (lambda: SQUARE[:2].trace(), "trace needs a square product, got [2, 4]"),
    # analyses
    (lambda: prompts.repeated(MODEL, 0), "BOS and 2 times 0 tokens"),
    (lambda: prompts.repeated(MODEL, 3, batch=0), "batch=0: at least one row of tokens is needed"),
    (lambda: prompts.random_tokens(MODEL, 3, batch=-1), "batch=-1: at least one row"),
    (lambda: induction_task(MODEL, 3, batch=0), "batch=0: at least one row"),
    (lambda: discovery.acdc(induction_task(MODEL, 3), math.nan),
     "an edge is kept if it costs at least the threshold, got nan"),
    (lambda: residual.logit_attribution(MODEL, CACHE, token=True), "wanted one token, or one for"),
    (lambda: attention.taxonomy(BROKEN), "scores of ['L1H2', 'L2H0', 'L2H1', 'L2H2'] are NaN"),
    (lambda: bandwidth.spectra(NO_TOKEN), "W_E or W_U has no variance over tokens, or holds"),
    (lambda: bandwidth.joint_share(NO_TOKEN), "W_E or W_U has no variance over tokens, or holds"),
    (lambda: NO_TOKEN.generate(TOKENS, 1), "logits that are not finite"),
    (lambda: NO_TOKEN.generate(TOKENS, 1, do_sample=False), "logits that are not finite"),
    (lambda: patterns.fixed_offset(tiny(n_layers=0), TOKENS[:, :1]), "2 tokens are needed, got"),
    (lambda: patterns.entropy(MODEL, TOKENS[:, :1]), "2 tokens are needed, got [3, 1]"),
    (lambda: patterns.moved_from_first(MODEL, TOKENS[:, :1]), "2 tokens are needed, got [3, 1]"),
    *((lambda metric=metric: metric(torch.zeros(3, 5)),
       "the metric is of token 7, and there are logits of tokens 0 to 4")
      for metric in (metrics.loss(SEVEN), metrics.probability(SEVEN),
                     metrics.logit_difference(SEVEN % 5, SEVEN))),
    (lambda: metrics.mean_loss(SEVEN[None])(torch.zeros(1, 3, 5)), "the metric is of token 7"),
    (lambda: metrics.loss(SEVEN - 8), "tokens are counted from 0, got -8"),
    (lambda: paths.groups(MODEL, CACHE, "path", memory=2**16), "groups of paths to logits want"),
]  # fmt: skip


@pytest.mark.parametrize(("call", "message"), CASES, ids=[message[:50] for _, message in CASES])
def test_bad_input_is_refused_in_words(call, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        call()


def test_what_the_run_did_not_keep_is_named():
    with pytest.raises(KeyError, match="names_filter left it out"):
        residual.components(MODEL, FEW)
    with pytest.raises(KeyError, match="names_filter left it out"):
        paths.groups(MODEL, FEW)


@pytest.mark.parametrize("call", [lambda by: paths.groups(MODEL, CACHE, by),
                                  lambda by: residual.components(MODEL, CACHE, by=by)])  # fmt: skip
def test_an_unknown_grouping_is_refused(call):
    with pytest.raises((ValueError, TypeError), match=r"heads|Literal"):
        call("heads")
