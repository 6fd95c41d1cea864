"""What scripts use of a model is there and is what it says, or is refused in words."""

import copy

import pytest
import torch

from circuits import GPT, composition, load, save
from circuits.hooked_transformer import HookedTransformer, HookedTransformerConfig, HookPoint, utils
from circuits.io import from_state_dict
from tests.conftest import ROTARY, tiny, variant_name
from tests.hooked_transformer.models import SHAPE, TOKENS, biased, ported
from tests.io.test_checkpoints import THEIRS, checkpoint

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


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


@pytest.mark.parametrize("fields", ROTARY, ids=variant_name)
def test_rotary_positions_and_their_blocks_are_those_of_a_gpt(fields):
    model, gpt = ported(**fields), tiny(**fields)
    assert torch.allclose(model(TOKENS), gpt(TOKENS), atol=1e-12)
    before = model(TOKENS, stop_at_layer=1)
    assert model.blocks[1](before).equal(model(TOKENS, stop_at_layer=2))
    assert model.cfg.to_dict() == type(model.cfg).from_dict(model.cfg.to_dict()).to_dict()
