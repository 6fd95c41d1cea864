"""HookedTransformer here: each name that scripts use is there and means what it meant, or says what
to write instead. test_port.py runs a script."""

import copy
import math

import pytest
import torch

from circuits import GPT, composition, load, save
from circuits.data import train_tokenizer
from circuits.hooked_transformer import (
    FactoredMatrix,
    HookedTransformer,
    HookedTransformerConfig,
    HookedTransformerKeyValueCache,
    HookPoint,
    utils,
)
from circuits.hooked_transformer import text as texts_of_it
from circuits.hooked_transformer.instead import INSTEAD
from circuits.hooked_transformer.text import checked_side
from circuits.io import bridge, from_state_dict
from tests.conftest import TINY, tiny, tiny_tokens
from tests.hooked_transformer.test_port import ported
from tests.io.test_checkpoints import THEIRS, checkpoint

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")
SHAPE = {**TINY, "attn_only": True}
TOKENS = tiny_tokens()
VOCABULARY = train_tokenizer(["the cat sat on the mat"], 270)


def speaking(**fields) -> HookedTransformer:
    cfg = {**SHAPE, "d_vocab": 270, "seed": 0, "initializer_range": 0.5, **fields}
    return HookedTransformer(cfg, VOCABULARY).eval()


# The config


def test_a_config_reads_as_transformer_lens_fills_it_in():
    cfg = HookedTransformerConfig(**{**TINY, "n_heads": -1}, d_mlp=None, act_fn="gelu", seed=None)
    assert (cfg.n_heads, cfg.d_mlp, cfg.attn_only) == (2, 48, False)
    assert cfg.initializer_range == pytest.approx(0.8 / math.sqrt(12))
    assert cfg.attn_scale == pytest.approx(math.sqrt(5)) and cfg.d_vocab_out == 29
    assert (cfg.device, cfg.dtype, cfg.model_name, cfg.seed) == ("cpu", torch.float32, "custom",
                                                                 None)  # fmt: skip
    assert not cfg.use_attn_result and cfg.default_prepend_bos and cfg.tokenizer_name is None
    assert cfg.n_params == 2 * (4 * 12 * 5 * 2 + 2 * 12 * 48)
    again = HookedTransformerConfig.from_dict(cfg.to_dict())
    assert again == cfg and again.to_dict() == cfg.to_dict() and copy.deepcopy(cfg) == cfg
    with pytest.raises(AttributeError, match="no field 'n_layer'"):
        _ = cfg.n_layer


def test_a_config_can_be_set_until_a_model_is_made_of_it():
    cfg = HookedTransformerConfig(**SHAPE)
    cfg.d_model, cfg.use_attn_result = 20, True
    model = HookedTransformer(cfg)
    assert model.W_E.shape == (29, 20) and model.cfg.use_attn_result
    assert model.cfg.initializer_range == pytest.approx(0.8 / math.sqrt(20))
    with pytest.raises(AttributeError, match=r"d_model cannot be set, the model is made"):
        model.cfg.d_model = 3
    with pytest.raises(ValueError, match=r"n_layer=3 is no field of .* did you mean 'n_layers'"):
        cfg.n_layer = 3
    assert HookedTransformer(model.cfg).W_E.equal(model.W_E)


@pytest.mark.parametrize(("fields", "message"), [
    ({"init_mode": "xavier_uniform"}, "init_mode='xavier_uniform' cannot be expressed"),
    ({"n_devices": 2}, "n_devices=2 cannot be expressed: a model lies on one device"),
    ({"use_attn_in": True}, "there is no hook_attn_in"), ({"gated_mlp": True}, "gated_mlp=True"),
    ({"positional_embedding_type": "rotary"}, "positional_embedding_type='rotary'"),
    ({"d_vocab": -1}, r"d_vocab must be a whole .* write d_vocab=len\(tokenizer\)"),
    ({"n_layer": 1}, "did you mean")])  # fmt: skip
def test_what_cannot_be_expressed_is_refused_by_field(fields, message):
    with pytest.raises(ValueError, match=message):
        HookedTransformer({**SHAPE, **fields})


def test_initialisation_follows_the_config_and_seeds_nothing_else():
    wide = {**SHAPE, "d_vocab": 500, "d_model": 60, "initializer_range": 0.3, "seed": 5}
    torch.manual_seed(1)
    before = torch.get_rng_state()
    model = HookedTransformer(wide)
    assert torch.get_rng_state().equal(before)
    assert abs(model.W_E.std() - 0.3) < 0.005 and not model.b_Q.any()
    assert HookedTransformer(wide).W_E.equal(model.W_E)
    unseeded = {**SHAPE, "dtype": "float64"}
    one, two = HookedTransformer(unseeded), HookedTransformer(unseeded)
    torch.manual_seed(1)
    assert not one.W_E.equal(two.W_E) and HookedTransformer(unseeded).W_E.equal(one.W_E)
    assert one.W_E.dtype == torch.float64 == one.cfg.dtype
    assert GPT(one.cfg).W_E.equal(HookedTransformer(one.cfg).W_E.float())


# Weights in


def test_old_checkpoints_come_in_with_their_masks_and_strictly():
    gpt = tiny(normalization_type="LN", positional_embedding_type="shortformer")
    fields = {**THEIRS, "device": "cpu", "dtype": torch.float64}
    model = HookedTransformer(fields)
    model.load_state_dict(checkpoint(gpt))
    assert model(TOKENS).equal(gpt(TOKENS))
    assert from_state_dict(fields, model.state_dict(), dtype=torch.float64)(TOKENS).equal(
        gpt(TOKENS)
    )
    with pytest.raises(RuntimeError, match=r"Missing key.*embed\.W_E"):
        model.load_state_dict({"blocks.0.attn.IGNORE": torch.tensor(0.0)})


def test_weights_are_processed_in_place_and_hooks_stay():
    model = ported(d_mlp=6, act_fn="gelu")
    before, heard = model(TOKENS).log_softmax(-1), []
    model.add_perma_hook("blocks.0.hook_resid_post", lambda x, hook: heard.append(hook.name))
    model.load_and_process_state_dict(model.state_dict())
    assert model.cfg.normalization_type == "LNPre" and isinstance(
        model.cfg, HookedTransformerConfig
    )
    assert torch.allclose(model(TOKENS).log_softmax(-1), before) and len(heard) == 1
    assert model.W_U.mean(-1).abs().max() < 1e-6 and not model.b_V.any()
    assert not hasattr(model.ln_final, "w") or model.ln_final.w is None
    shortformer = ported(positional_embedding_type="shortformer")
    with pytest.warns(UserWarning, match="fold_ln is left out: shortformer positions"):
        shortformer.process_weights_(center_writing_weights=False)
    assert shortformer.W_U.mean(-1).abs().max() < 1e-6


def test_models_by_name_come_processed_or_as_they_are(tmp_path):
    gpt = tiny(d_mlp=6, act_fn="gelu", dtype=torch.float32)
    save(gpt, tmp_path)
    plain = HookedTransformer.from_pretrained_no_processing(str(tmp_path), dtype="float64")
    assert plain.W_E.equal(gpt.W_E.double()) and plain.cfg.model_name == str(tmp_path)
    processed = HookedTransformer.from_pretrained(str(tmp_path), dtype=torch.float64)
    flags = {"fold_ln": True, "center_writing_weights": True, "center_unembed": True}
    loaded = load(tmp_path, dtype=torch.float64, fold_value_biases=True, **flags)
    assert type(loaded) is GPT and torch.allclose(processed.W_U, loaded.W_U)
    assert torch.allclose(processed(TOKENS), loaded(TOKENS)) and not processed.training
    assert torch.allclose(
        load(tmp_path, center_unembed=True).W_U.mean(-1), torch.zeros(12), atol=1e-6
    )
    assert not torch.allclose(load(tmp_path).W_U.mean(-1), torch.zeros(12), atol=1e-2)
    ships = HookedTransformer.from_pretrained_no_processing("attn-only-2l")
    assert ships.to_single_token(" sh") == load("attn-only-2l").to_single_token(" sh")
    with pytest.raises(ValueError, match="shortformer positions are added after the norm"):
        load("attn-only-2l", fold_ln=True)
    with pytest.raises(KeyError, match="no model 'gelu-2l'"):
        HookedTransformer.from_pretrained("gelu-2l")
    for refused in ({"first_n_layers": 1}, {"n_devices": 2}, {"checkpoint_index": 3}):
        with pytest.raises(ValueError, match=f"{next(iter(refused))} is not supported"):
            HookedTransformer.from_pretrained("attn-only-2l", **refused)
    with pytest.raises(ValueError, match=r"models by name: from_pretrained\(name\)"):
        HookedTransformer("attn-only-2l")


# Names of weights, runs and hooks: each with what it must equal


def biased() -> HookedTransformer:
    return ported(d_mlp=6, act_fn="relu", normalization_type=None)


LAWS = {
    "b_Q": lambda m: m.b_Q.equal(torch.stack([block.attn.b_Q for block in m.blocks])),
    "b_K": lambda m: m.b_K.equal(torch.stack([block.attn.b_K for block in m.blocks])),
    "b_V": lambda m: m.b_V.equal(torch.stack([block.attn.b_V for block in m.blocks])),
    "b_O": lambda m: m.b_O.equal(torch.stack([block.attn.b_O for block in m.blocks])),
    "b_in": lambda m: m.b_in.equal(torch.stack([block.mlp.b_in for block in m.blocks])),
    "b_out": lambda m: m.b_out.equal(torch.stack([block.mlp.b_out for block in m.blocks])),
    "b_U": lambda m: m.b_U is m.unembed.b_U,
    "W_E_pos": lambda m: m.W_E_pos.shape == (29 + 16, 12) and m.W_E_pos[:29].equal(m.W_E),
    "OV": lambda m: torch.allclose(m.OV[1, 2].AB, m.W_V[1, 2] @ m.W_O[1, 2]),
    "QK": lambda m: torch.allclose(m.QK.AB[0, 1], m.W_Q[0, 1] @ m.W_K[0, 1].T),
    "all_head_labels": lambda m: (
        m.all_head_labels() == ["L0H0", "L0H1", "L0H2", "L1H0", "L1H1", "L1H2"]
    ),
    "all_composition_scores": lambda m: all(
        torch.allclose(m.all_composition_scores(mode), by_ours.nan_to_num(0.0), atol=1e-6)
        for mode, by_ours in zip("QKV", composition.scores(m), strict=True)
    ),
    "tokens_to_residual_directions": lambda m: (
        m.tokens_to_residual_directions(TOKENS).equal(m.W_U.T[TOKENS])
        and m.tokens_to_residual_directions(torch.tensor([3])).equal(m.W_U[:, 3])
    ),
    "accumulated_bias": lambda m: (
        torch.allclose(m.accumulated_bias(2), m.b_O.sum(0) + m.b_out.sum(0))
        and torch.allclose(
            m.accumulated_bias(1, mlp_input=True, include_mlp_biases=False), m.b_O.sum(0)
        )
        and not m.accumulated_bias(0).any()
    ),
    "loss_fn": lambda m: torch.allclose(m.loss_fn(m(TOKENS), TOKENS), m(TOKENS, "loss")),
    "return_type both": lambda m: (
        m(TOKENS, return_type="both").loss.equal(m(TOKENS, return_type="loss"))
        and m(TOKENS, return_type="both").logits.equal(m(TOKENS))
    ),
    "loss_per_token": lambda m: m(TOKENS, "loss", True).shape == (3, 6),
    "negative tokens": lambda m: m(TOKENS - 29).equal(m(TOKENS)),
    "setup": lambda m: m.setup() is None and m.hook_dict["hook_embed"] is m.hook_embed,
    "n_params_total": lambda m: m.n_params_total == sum(p.numel() for p in m.parameters()),
    "a block": lambda m: m.blocks[1](m(TOKENS, stop_at_layer=1)).equal(m(TOKENS, stop_at_layer=2)),
    "positions": lambda m: m.pos_embed(TOKENS, 2).equal(m.W_pos[2:9].expand(3, -1, -1)),
    "masked positions": lambda m: m.pos_embed(
        TOKENS[:1], 0, torch.tensor([[0, 0, 1, 1, 1, 1, 1]])
    ).equal(m.W_pos[[0, 0, 0, 1, 2, 3, 4]][None]),
    "attention by name": lambda m: (
        m.blocks[0]
        .attn(query_input=m.W_E[None, :4], key_input=m.W_E[None, :4], value_input=m.W_E[None, :4])
        .equal(m.blocks[0].attn(*[m.W_E[None, :4]] * 3))
    ),
    "parts": lambda m: (
        torch.allclose(m.blocks[1].attn.OV.AB, m.OV[1].AB)
        and torch.allclose(m.blocks[1].attn.QK.AB, m.QK[1].AB)
        and m.blocks[1].attn.attn_scale == m.cfg.attn_scale
        and m.blocks[1].attn.layer_id == 1
        and m.blocks[1].attn.mask.equal(torch.ones(16, 16).tril().bool())
        and m.blocks[1].attn.IGNORE.isneginf()
        and torch.equal(m.blocks[0].mlp.act_fn(m.W_E), m.W_E.relu())
        and all(part.cfg is m.cfg for part in (m.embed, m.unembed, m.blocks[0], m.blocks[0].attn))
    ),
    "cfg of a copy": lambda m: (c := copy.deepcopy(m)).blocks[0].cfg is c.cfg is not m.cfg,
    "list_hooks": lambda m: (
        m.add_hook("hook_embed", print) is None
        and list(m.list_hooks()) == ["hook_embed"]
        and m.list_hooks(dir="bwd") == {}
        and m.remove_all_hook_fns() is None
        and m.list_hooks() == {}
    ),
    "hook_points": lambda m: all(isinstance(point, HookPoint) for point in m.hook_points()),
    "to": lambda m: m.to(torch.float32, print_details=False).cfg.dtype == m.W_E.dtype,
    "deepcopy": lambda m: copy.deepcopy(m)(TOKENS).equal(m(TOKENS)),
    "start_at_layer": lambda m: torch.allclose(
        m(m(TOKENS, stop_at_layer=1), start_at_layer=1), m(TOKENS)
    ),
}


@pytest.mark.parametrize("name", LAWS)
def test_what_scripts_use_is_there_and_is_what_it_says(name):
    assert LAWS[name](biased())


def test_a_bias_that_is_not_there_is_zero():
    model = ported(bias=False)
    assert model.b_Q.shape == (2, 3, 5) and not model.b_O.any() and not model.b_U.any()
    assert not model.accumulated_bias(2).any()


def test_old_names_of_singular_vectors_mean_what_they_meant():
    product = biased().OV.T[1, 0]
    U, S, V = product.svd()
    assert type(product) is FactoredMatrix and V.equal(product.Vh) and V.equal(product.V)
    assert torch.allclose(U * S @ V.mT, product.AB)
    for same in (product.make_even(), product.unsqueeze(0)[0]):
        assert torch.allclose(same.AB, product.AB)
    assert torch.allclose(product.collapse_l().norm(), product.norm())
    assert torch.allclose(product.get_corner(), product.AB[:3, :3])
    assert not product.has_leading_dims and biased().OV.has_leading_dims


@pytest.mark.parametrize("owner", INSTEAD)
def test_a_name_that_is_not_there_says_what_to_write_instead(owner):
    model = biased()
    cache = model.run_with_cache(TOKENS)[1]
    owners = {"HookedTransformer": model, "ActivationCache": cache, "utils": utils}
    for name, line in INSTEAD[owner].items():
        with pytest.raises(AttributeError) as error:
            getattr(owners[owner], name)
        assert str(error.value) == f"{owner} has no {name!r} here: write {line}"


def test_a_block_of_a_shortformer_model_wants_its_positions():
    with pytest.raises(ValueError, match=r"block\(resid, model.pos_embed\(tokens\)\)"):
        ported(positional_embedding_type="shortformer").blocks[0](torch.zeros(1, 2, 12).double())


@pytest.mark.parametrize(("call", "message"), [
    (lambda m: m.add_hook("blocks.0.attn.hook_rot_q", print), "no hook point matches .*hook_rot_q"),
    (lambda m: m.run_with_cache(TOKENS, incl_bwd=True), "keeps no gradients"),
    (lambda m: m.set_use_attn_in(True), "there is no hook_attn_in"),
    (lambda m: m(TOKENS, shortformer_pos_embed=0), "the model adds its positions itself"),
    (lambda m: m(TOKENS, tokens=TOKENS), r"write model.loss_fn\(logits, tokens\)"),
    (lambda m: m.generate(TOKENS, freq_penalty=0.5), "freq_penalty=0.5 is not supported"),
    (lambda m: m.generate(TOKENS, repetition_penalty=2.0), "repetition_penalty"),
    (lambda m: m(TOKENS, attention_maks=TOKENS), "attention_maks"),
    (lambda m: m.all_composition_scores("q"), "choose Q, K or V"),
    (lambda m: m.accumulated_bias(2, mlp_input=True), "layer 2 does not exist"),
    (lambda m: m.tokens_to_residual_directions("cat"), "has no tokenizer"),
    (lambda m: utils.test_prompt, "no 'test_prompt' here: write")])  # fmt: skip
def test_an_argument_that_cannot_act_is_refused_in_words(call, message):
    with pytest.raises((ValueError, KeyError, TypeError, AttributeError), match=message):
        call(biased())


def test_hooks_are_reset_by_direction_and_stay_where_it_is_asked():
    model, heard = biased(), []

    def hear(x, hook):
        heard.append(hook.name)
        hook.ctx["heard"] = True

    name = "blocks.0.hook_resid_pre"
    model.add_hook(name, hear)
    model.add_hook(name, hear, "bwd")
    model.reset_hooks(clear_contexts=False, direction="fwd")
    model(TOKENS, return_type="loss").backward()
    assert heard == [name] and model.hook_dict[name].ctx
    model.reset_hooks()
    assert not model.hook_dict[name].has_active_hooks and not model.hook_dict[name].ctx
    heard.clear()
    model.run_with_hooks(TOKENS, fwd_hooks=[(name, hear)], reset_hooks_end=False)
    model.run_with_hooks(TOKENS, fwd_hooks=[(name, hear)], clear_contexts=True)
    assert len(heard) == 3 and not model.hook_dict[name].ctx
    model.reset_hooks()
    model.add_perma_hook(name, hear)
    model.reset_hooks()
    assert model.hook_dict[name].has_active_hooks
    model.reset_hooks(including_permanent=True)
    with model.hooks([(name, hear)], reset_hooks_end=False, clear_contexts=True):
        pass
    assert model.hook_dict[name].has_active_hooks


def test_flags_act_that_are_set_in_the_config_of_a_model():
    model = biased()
    for flag, names in {
        "use_attn_result": ["result"],
        "use_hook_mlp_in": ["mlp_in"],
        "use_split_qkv_input": ["q_input", "k_input", "v_input"],
    }.items():
        for on in (True, False):
            setattr(model.cfg, flag, on)
            _, cache = model.run_with_cache(TOKENS)
            assert all(((name, 1) in cache) is on for name in names), flag
    _, cache = model.run_with_cache(TOKENS)
    assert all(value.mean() is not None for value in cache.values())  # no tokens among them
    model.cfg.use_hook_tokens = True
    assert model.run_with_cache(TOKENS)[1]["tokens"].equal(TOKENS)
    with pytest.raises(ValueError, match="there is no hook_attn_in"):
        model.cfg.use_attn_in = True
    model = speaking()
    n = model.to_tokens("cat").shape[1]
    model.cfg.default_prepend_bos = False
    assert model.to_tokens("cat").shape[1] == n - 1


@pytest.mark.parametrize("fields", [
    {"d_mlp": 6, "act_fn": "relu"}, {"bias": False, "positional_embedding_type": "shortformer"},
    {"d_head": 15, "smeared_keys": True}])  # fmt: skip
def test_refactored_heads_compute_the_same_by_plainer_factors(fields):
    model = ported(**fields)
    logits, before = model.run_with_cache(TOKENS)
    model.process_weights_(False, False, False, True, False)
    after_logits, after = model.run_with_cache(TOKENS)
    assert torch.allclose(after_logits, logits)
    assert torch.allclose(after["pattern", 1], before["pattern", 1])
    rank = min(model.cfg.d_head, 12)
    gram = (model.W_O @ model.W_O.mT)[:, :, :rank, :rank]
    assert torch.allclose(gram, torch.eye(rank, dtype=gram.dtype).expand_as(gram))
    norms = [(W.square().sum(2) + b.square()).sort().values for W, b in
             ((model.W_Q, model.b_Q), (model.W_K, model.b_K))]  # fmt: skip
    assert torch.allclose(*norms) and not model.b_V.any()


# Text


def test_texts_are_begun_padded_and_cut_as_they_were():
    model = speaking(n_ctx=8)
    short, long = model.to_tokens("cat"), model.to_tokens("the cat sat on the mat")
    assert short[0, 0] == model.tokenizer.bos_token_id == 0 and long.shape[1] <= 8
    both = model.to_tokens(["cat", "the cat sat on"])
    left = model.to_tokens(["cat", "the cat sat on"], padding_side="left")
    n = short.shape[1]
    assert both[0, :n].equal(short[0]) and not both[0, n:].any()
    assert left[0, -n:].equal(short[0]) and not left[0, :-n].any() and left[1].equal(both[1])
    assert model.to_tokens("cat", False)[0].equal(short[0, 1:])
    assert model.to_tokens("q" * 30).shape == (1, 8)
    assert model.to_tokens("q" * 30, truncate=False).shape == (1, 31)
    bare = speaking(default_prepend_bos=False)
    assert bare.to_tokens("cat").equal(short[:, 1:]) and bare("cat").shape[1] == n - 1
    assert bare("cat", prepend_bos=True).equal(bare(short))
    side = HookedTransformer(model.cfg, VOCABULARY, default_padding_side="left")
    assert side.to_tokens(["cat", "the cat sat on"]).equal(left)
    with pytest.raises(ValueError, match="padding_side='up'; choose left or right"):
        checked_side("up")


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("position", ["standard", "shortformer"])
def test_a_padded_text_has_the_logits_and_the_loss_it_has_alone(side, position):
    model = speaking(positional_embedding_type=position, dtype="float64")
    texts = ["cat", "the cat sat"]
    together = model(texts, padding_side=side)
    tokens = model.to_tokens(texts, padding_side=side)
    assert model(tokens, padding_side=side).shape == together.shape
    losses = []
    for row, text in enumerate(texts):
        alone = model(text)
        own = slice(alone.shape[1]) if side == "right" else slice(-alone.shape[1], None)
        assert torch.allclose(together[row, own], alone[0])
        assert torch.allclose(model(tokens, padding_side=side)[row, own], alone[0])
        losses.append(model(text, return_type="loss", loss_per_token=True))
    loss = model(texts, return_type="loss", padding_side=side)
    assert torch.allclose(loss, torch.cat(losses, 1).mean())
    if side == "left":
        model.default_padding_side = "left"
        assert torch.allclose(model(tokens), together) and torch.allclose(model(texts), together)
        unmasked = model(tokens, padding_side="right")
        assert not torch.allclose(unmasked, together)
    with pytest.raises(ValueError, match="attention_mask is for tokens"):
        model(texts, attention_mask=torch.ones_like(tokens))


@pytest.mark.parametrize("first", ["left", "right"])
@pytest.mark.parametrize("second", ["left", "right"])
def test_pieces_of_a_padded_batch_have_the_logits_of_each_row_alone(first, second):
    """TransformerLens 3.9 has them too, but where the second piece is padded on the left it needs
    prepend_bos=False."""
    model = speaking(dtype="float64", d_mlp=6, act_fn="relu", attn_only=False)
    rows = [[[0, 5, 6, 7], [11, 12]], [[0, 9], [13]]]
    past = HookedTransformerKeyValueCache.init_cache(model.cfg, model.cfg.device, 2)
    for piece, side in enumerate((first, second)):
        model.tokenizer.padding_side = side
        tokens, mask = VOCABULARY.pad([row[piece] for row in rows], side)
        logits = model(tokens, past_kv_cache=past)
    for row, own, got in zip(rows, mask, logits, strict=True):
        alone = model(torch.tensor([row[0] + row[1]]), padding_side="right")[0, -len(row[1]) :]
        assert torch.allclose(got[own], alone)
    assert past.entries[0].past_keys.shape == past[1].past_values.shape == (2, 6, 3, 5)
    assert past.previous_attention_mask.sum(1).tolist() == [6, 3]


def test_a_text_read_token_by_token_begins_with_its_BOS():
    model = speaking(dtype="float64")
    tokens, past = model.to_tokens("the cat"), HookedTransformerKeyValueCache.init_cache(model.cfg)
    read = [model(token[:, None], past_kv_cache=past) for token in tokens.unbind(1)]
    assert torch.allclose(torch.cat(read, 1), model(tokens))
    with pytest.raises(ValueError, match=r"the second argument is the device: write init_cache"):
        HookedTransformerKeyValueCache.init_cache(model.cfg, 2)


def test_the_padding_side_is_that_of_the_tokenizer():
    model, texts = speaking(), ["cat", "the cat sat on"]
    left = model.to_tokens(texts, padding_side="left")
    model.tokenizer.padding_side = "left"
    assert model.default_padding_side == "left" and model.to_tokens(texts).equal(left)
    model.default_padding_side = "right"
    assert model.tokenizer.padding_side == "right" and not model.to_tokens(texts).equal(left)
    fast = bridge._fast_tokenizer(VOCABULARY)
    fast.padding_side = "left"
    assert HookedTransformer(model.cfg, fast).to_tokens(texts).equal(left)
    assert HookedTransformer(model.cfg, fast, default_padding_side="right").to_tokens(texts).equal(
        model.to_tokens(texts))  # fmt: skip
    with pytest.raises(ValueError, match="padding_side='middle'; choose left or right"):
        model.tokenizer.padding_side = "middle"
    model.tokenizer.pad_token = model.tokenizer.eos_token  # as it is
    model.tokenizer.pad_token_id = model.tokenizer.eos_token_id
    with pytest.raises(AttributeError, match="pad_token cannot be set"):
        model.tokenizer.pad_token = "the"


def test_toy_models_of_other_tasks_are_built_from_their_config():
    fields = {**TINY, "act_fn": "solu_ln", "attention_dir": "bidirectional", "d_vocab_out": 5}
    model = HookedTransformer({**fields, "seed": 0, "initializer_range": 0.4})
    assert model(TOKENS).shape == (3, 7, 5) and model.b_U.shape == (5,)
    assert model.cfg.d_vocab_out == 5 and model.cfg.attention_dir == "bidirectional"
    assert HookedTransformerConfig.from_dict(model.cfg.to_dict()) == model.cfg
    _, cache = model.run_with_cache(TOKENS)
    assert (cache["pattern", 0] > 0).all() and model.cfg.is_layer_norm_activation()


def test_tokens_and_text_go_back_and_forth():
    model = speaking()
    tokens = model.to_tokens(["the cat", "the mat"])
    assert model.to_string(tokens[0, 1:]) == "the cat"
    assert model.to_string(tokens[:, 1:]) == ["the cat", "the mat"]
    assert model.to_str_tokens("the cat")[0] == "<|endoftext|>"
    assert "".join(model.to_str_tokens("the cat", prepend_bos=False)) == "the cat"
    assert model.to_str_tokens(["the cat", "mat"]) == [model.to_str_tokens("the cat"),
                                                       model.to_str_tokens("mat")]  # fmt: skip
    assert model.to_single_str_token(0) == "<|endoftext|>"
    twice = torch.tensor([5, 9, 5, 7])
    assert [model.get_token_position(5, twice, mode) for mode in ("first", "last")] == [0, 2]
    with pytest.raises(ValueError, match="expected mode first or last and 6 in one row"):
        model.get_token_position(6, twice)
    speech = model.tokenizer
    assert (
        len(speech) == speech.vocab_size == VOCABULARY.size
        and speech.decode(speech.encode("mat")) == "mat"
    )
    assert speech.batch_decode(tokens[:, 1:]) == ["the cat", "the mat"]
    assert speech.eos_token_id == speech.pad_token_id == 0 and len(speech.get_vocab()) == len(
        speech
    )


def test_a_tokenizer_comes_from_transformers_or_by_name_when_text_is_wanted(tmp_path, monkeypatch):
    fast = bridge._fast_tokenizer(VOCABULARY)
    fast.save_pretrained(tmp_path)
    cfg = {**SHAPE, "d_vocab": 270}
    expected = speaking().to_tokens("the cat")
    assert HookedTransformer(cfg, fast).to_tokens("the cat").equal(expected)
    named = HookedTransformer({**cfg, "tokenizer_name": str(tmp_path)})
    assert named.to_tokens("the cat").equal(expected)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    absent = HookedTransformer({**cfg, "tokenizer_name": str(tmp_path / "no" / "such")})
    assert absent(TOKENS).shape == (3, 7, 270)
    absent.process_weights_()
    for _ in range(2):  # the second time without another try
        with pytest.raises(OSError, match="give the model a tokenizer of your own, or give it tok"):
            absent.to_tokens("the cat")
        monkeypatch.setattr(texts_of_it, "vocabulary_by_name", None)
    past = HookedTransformerKeyValueCache.init_cache(absent.cfg, batch_size=3)
    with pytest.raises(OSError, match="pads cannot be found without a tokenizer: give an att"):
        absent(TOKENS, past_kv_cache=past)
    assert absent(TOKENS, past_kv_cache=past, attention_mask=TOKENS >= 0).shape == (3, 7, 270)
    absent.set_tokenizer(fast)
    assert absent.to_tokens("the cat").equal(expected)
    assert absent.tokenizer.name_or_path == fast.name_or_path
    with pytest.raises(ValueError, match="at most 29 tokens"):
        HookedTransformer(SHAPE, VOCABULARY)


def test_generation_takes_the_arguments_it_took():
    model = speaking()
    greedy = model.generate("the cat", 4, do_sample=False, verbose=False, stop_at_eos=False)
    assert greedy.startswith("the cat") and isinstance(greedy, str)
    tokens = model.to_tokens("the cat")
    options = {"max_new_tokens": 6, "stop_at_eos": False}
    torch.manual_seed(0)
    one, two = model.generate(tokens, **options), model.generate(tokens, **options)
    torch.manual_seed(0)
    assert not one.equal(two) and model.generate(tokens, **options).equal(one)
    assert model.generate(tokens, seed=3, **options).equal(
        model.generate(tokens, seed=3, **options)
    )
    texts, greedily = ["cat", "the cat sat"], {"do_sample": False, **options}
    alone = [model.generate(text, **greedily) for text in texts]
    padded = model.to_tokens(texts, padding_side="left")
    said = model.generate(padded, padding_side="left", return_type="str", **greedily)
    assert (
        model.generate(texts, **greedily)
        == alone
        == [s.removeprefix("<|endoftext|>") for s in said]
    )
    right = model.to_tokens(texts, padding_side="right")
    said = model.generate(right, return_type="str", **greedily)
    assert alone == [s.removeprefix("<|endoftext|>") for s in said]
    assert model.generate(max_new_tokens=2, return_type="tokens", stop_at_eos=False).shape == (1, 3)


def test_utils_are_the_few_that_small_models_need():
    name = utils.get_act_name
    assert name("k", 6, "a") == name("k6") == name("key", 6) == "blocks.6.attn.hook_k"
    assert name("scale4ln1") == name("scale", 4, "ln1") == "blocks.4.ln1.hook_scale"
    assert name("resid_pre", 2) == "blocks.2.hook_resid_pre" and name("embed") == "hook_embed"
    model, mask = biased(), torch.ones(3, 7, dtype=torch.long)
    logits, mask[0, 5:] = model(TOKENS), 0
    losses = utils.lm_cross_entropy_loss(logits, TOKENS, per_token=True)
    masked = utils.lm_cross_entropy_loss(logits, TOKENS, mask)
    assert torch.allclose(masked, torch.cat([losses[0, :4], losses[1:].flatten()]).mean())
    hits = utils.lm_accuracy(logits, TOKENS, per_token=True)
    assert hits.float().mean() == utils.lm_accuracy(logits, TOKENS) and hits.shape == (3, 6)
    assert utils.to_numpy(model.W_E).shape == (29, 12) and utils.get_device().type in (
        "cpu",
        "cuda",
    )
