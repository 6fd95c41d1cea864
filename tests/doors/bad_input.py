"""Bad input at every door: the errors that users see, who run without the type checker.

Run this file alone, also in a debugger: pytest -o addopts= tests/doors/bad_input.py. The other
tests run with jaxtyping and beartype on, which would refuse most of this first; so test_doors.py
starts a second pytest without them.
"""

import json
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer

from analyses import (
    Task,
    attention,
    copying,
    discovery,
    dynamics,
    figures,
    head_composition,
    patching,
    plots,
    prompts,
    recording,
    report,
    skip_trigrams,
)
from circuits import GPT, FactoredMatrix, GPTConfig, algebra, load, residual, save
from circuits.data import (
    RepeatedTokens,
    Shards,
    Windows,
    documents,
    shards,
    synthetic,
    train_tokenizer,
)
from circuits.io import load_weights
from circuits.model import Vocabulary
from circuits.training import Recipe, Snapshots, train
from tests.conftest import TINY


def cfg(**fields):
    return GPTConfig(**{**TINY, **fields})


model, tokens = GPT(cfg()), torch.zeros(1, 4, dtype=torch.long)
vocabulary = train_tokenizer(["one two one two one"], 262)
talker = GPT(cfg(d_vocab=262), vocabulary)


@pytest.fixture
def folder(tmp_path):
    save(model, tmp_path / "saved")
    return tmp_path


@contextmanager
def refused(kind, message):
    with pytest.raises(kind) as caught:
        yield
    said = str(caught.value.args[0]) if caught.value.args else ""
    assert caught.type is kind and message in said, f"{caught.type.__name__}: {said}"


def first(logits):
    return logits[:, 0]


def written(file, content):
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(content)
    return file


def damaged(**change):
    weights = {name: weight.clone() for name, weight in model.state_dict().items()}
    for key, value in change.items():
        name = key.replace("__", ".")
        if value is None:
            weights.pop(name)
        else:
            weights[name] = value
    load_weights(model, weights)


def test_a_config_refuses_fields_that_do_not_exist():
    with refused(TypeError, "no field 'n_layer'; did you mean 'n_layers'?"):
        cfg(n_layer=2)
    with refused(TypeError, "'attn_only'; leave d_mlp out"):
        cfg(attn_only=True)


def test_a_config_refuses_sizes_that_cannot_be():
    with refused(ValueError, "n_layers must be a whole number >= 0, got -1"):
        cfg(n_layers=-1)
    with refused(ValueError, "d_model must be a whole number >= 1, got 0"):
        cfg(d_model=0)
    with refused(ValueError, "d_head must be a whole number >= 1, got 2.5"):
        cfg(d_head=2.5)
    with refused(ValueError, "n_ctx must be a whole number >= 1, got True"):
        cfg(n_ctx=True)
    with refused(ValueError, "d_mlp must be a whole number >= 1, or None"):
        cfg(d_mlp=0, act_fn="relu")
    with refused(ValueError, "d_vocab_out must be a whole number >= 1, or None"):
        cfg(d_vocab_out=0)


def test_a_config_refuses_parts_that_would_do_nothing_or_are_not_there():
    with refused(ValueError, "act_fn=None is not supported; choose"):
        cfg(d_mlp=5)
    with refused(ValueError, "act_fn='relu' would do nothing: d_mlp is None"):
        cfg(act_fn="relu")
    with refused(ValueError, "act_fn='relu2' is not supported; choose"):
        cfg(d_mlp=5, act_fn="relu2")
    with refused(ValueError, "attention_dir='left' is not supported; choose"):
        cfg(attention_dir="left")
    with refused(ValueError, "normalization_type='BN' is not supported"):
        cfg(normalization_type="BN")
    with refused(ValueError, "'alibi' is not supported; choose"):
        cfg(positional_embedding_type="alibi")
    turned = GPT(cfg(positional_embedding_type="rotary", d_head=4))
    for offset in (0.5, [[1]], 16):
        with refused(ValueError, f"from 0 to {turned.cfg.n_ctx - 1}; got {offset}"):
            algebra.QK(turned, offset)
    with refused(ValueError, "sinusoid_base=9.0 would do nothing"):
        cfg(sinusoid_base=9.0)


def test_a_config_refuses_numbers_and_flags_that_cannot_be():
    with refused(ValueError, "bias must be True or False, got 'yes'"):
        cfg(bias="yes")
    with refused(ValueError, "attn_scale must be a number > 0, got 0.0"):
        cfg(attn_scale=0.0)
    with refused(ValueError, "eps must be a number > 0, got nan"):
        cfg(eps=float("nan"))


def test_a_mask_has_the_shape_of_the_tokens():
    with refused(ValueError, "attention_mask must be [1, 4], got [1, 5]"):
        model(tokens, attention_mask=torch.ones(1, 5))
    with refused(ValueError, "attention_mask must be [1, 4], got [1, 4, 1]"):
        model(tokens, attention_mask=torch.ones(1, 4, 1))
    with refused(ValueError, "padding_side='top'; choose left or right"):
        talker.to_padded_tokens(["a"], padding_side="top")
    with refused(TypeError, "'attention_maks'"):
        model(tokens, attention_maks=tokens)


def test_tokens_outside_of_the_vocabulary_are_named_with_their_place():
    with refused(
        ValueError, "token 29 at batch 0, position 1 is outside of the vocabulary: d_vocab=29"
    ):
        model(torch.tensor([[1, 29]]))
    with refused(ValueError, "token -1 at batch 0, position 1"):
        model(torch.tensor([[1, -1]]))


def test_tokens_of_another_shape_or_type_are_refused():
    with refused(ValueError, "18 tokens are 2 more than the context of n_ctx=16"):
        model(torch.zeros(1, 18, dtype=torch.long))
    with refused(ValueError, "not empty, got [1, 0]"):
        model(torch.zeros(1, 0, dtype=torch.long))
    with refused(ValueError, "got [1, 2, 3]"):
        model(torch.zeros(1, 2, 3, dtype=torch.long))
    with refused(ValueError, "tokens must be integers, got torch.float32"):
        model(torch.zeros(1, 2))


def test_text_needs_a_tokenizer_and_one_length():
    with refused(ValueError, "no tokenizer: give it tokens"):
        model("text")
    with refused(ValueError, "one common length"):
        talker.to_tokens(["one", "one two"])
    with refused(ValueError, "'one two' is "):
        talker.to_single_token("one two")


def test_a_tokenizer_without_the_special_token_is_refused():
    bpe = {"type": "BPE", "vocab": {}, "merges": []}
    parts = ("truncation", "padding", "normalizer", "pre_tokenizer", "post_processor", "decoder")
    bare = {"version": "1.0", "added_tokens": [], "model": bpe, **dict.fromkeys(parts)}
    with refused(ValueError, "no '<|endoftext|>' token"):
        Vocabulary(Tokenizer.from_str(json.dumps(bare)))


def test_a_run_refuses_arguments_that_it_does_not_know():
    with refused(ValueError, "return_type='logit'; choose logits, loss, both"):
        model(tokens, "logit")
    with refused(TypeError, "attention_maks"):
        model(tokens, attention_maks=None)
    with refused(TypeError, "stop_at_layr"):
        model.run_with_cache(tokens, stop_at_layr=1)


def test_a_run_starts_and_stops_at_layers_that_exist():
    with refused(ValueError, "layer 3 does not exist: the model has 2"):
        model(tokens, stop_at_layer=3)
    with refused(ValueError, "needs a stream [batch pos 12], got [1, 4]"):
        model(tokens, start_at_layer=1)
    with refused(ValueError, "are 2 more than"):
        model(torch.zeros(1, 18, 12), start_at_layer=1)
    with refused(ValueError, "cannot start at layer 2 and stop before layer 1"):
        model(torch.zeros(1, 4, 12), start_at_layer=2, stop_at_layer=1)


def test_a_loss_needs_logits_and_two_tokens():
    with refused(ValueError, "a loss needs return_type='loss'"):
        model(tokens, "loss", stop_at_layer=1)
    with refused(ValueError, "a loss needs return_type='loss'"):
        model(tokens, loss_per_token=True)
    with refused(ValueError, "the loss needs at least two tokens"):
        model(tokens[:, :1], "loss")


def test_weights_that_a_model_lacks_are_refused():
    with refused(ValueError, "attention-only: it has no W_in"):
        _ = model.W_in
    with refused(ValueError, "has no positions"):
        _ = GPT(cfg(positional_embedding_type="none")).W_pos


def test_hook_names_that_match_nothing_are_refused_with_the_nearest():
    with refused(
        KeyError,
        "no hook point matches 'blocks.0.attn.hook_paterm'; the nearest are "
        "['blocks.0.attn.hook_pat",
    ):
        model.run_with_hooks(tokens, fwd_hooks=[("blocks.0.attn.hook_paterm", print)])
    with refused(KeyError, "matches 'blocks.9.*'"):
        model.run_with_cache(tokens, names_filter="blocks.9.*")
    with refused(KeyError, "it is kept only when named"):
        model.run_with_cache(tokens)[1]["result", 0]


def test_a_hook_returns_a_tensor_of_the_same_shape():
    with refused(TypeError, "the hook on 'hook_embed' returned float"):
        model.run_with_hooks(tokens, fwd_hooks=[("embed", lambda x, hook: 1.0)])
    with refused(ValueError, "returned shape [4, 12]; the activation is [1, 4, 12]"):
        model.run_with_hooks(tokens, fwd_hooks=[("embed", lambda x, hook: x[0])])


def test_a_hook_that_is_never_called_is_an_error():
    with refused(ValueError, "a hook was never called: the run did not reach"):
        model.run_with_hooks(
            tokens, stop_at_layer=1, fwd_hooks=[("blocks.1.hook_resid_pre", lambda x, hook: x)]
        )
    with refused(ValueError, "a hook was never called"):
        model.run_with_hooks(tokens, fwd_hooks=[(lambda name: False, print)])
    with refused(ValueError, "dir must be one of ['fwd', 'bwd']"):
        model.add_hook("embed", print, "forward")


def test_models_are_loaded_by_their_name_and_not_written_over(folder):
    with refused(KeyError, "did you mean 'attn-only-2l'?"):
        load("attn-only-2L")
    with refused(KeyError, "a folder must hold config.json and model.safetensors"):
        load(folder)
    with refused(ValueError, "already holds a model; pass overwrite=True"):
        save(model, folder / "saved")


def test_weights_that_do_not_fit_are_named():
    with refused(ValueError, "embed.W_E is [3, 12] in the checkpoint, but [29, 12] by the config"):
        damaged(embed__W_E=torch.zeros(3, 12))
    with refused(ValueError, "lacks ['embed.W_E']"):
        damaged(embed__W_E=None)
    with refused(ValueError, "the model has no ['extra']"):
        damaged(extra=torch.zeros(1))
    with refused(ValueError, "embed.W_E in the checkpoint holds a number that is not finite"):
        damaged(embed__W_E=torch.full((29, 12), torch.nan))


def test_damaged_folders_are_refused_with_the_file(folder):
    written(folder / "bad/config.json", b"{")
    with refused(ValueError, "config.json: "):
        load(folder / "bad")
    written(folder / "cut/config.json", cfg().to_json().encode())
    weights = (folder / "saved/model.safetensors").read_bytes()
    written(folder / "cut/model.safetensors", weights[:900])
    with refused(ValueError, "is not a whole safetensors file"):
        load(folder / "cut")
    written(folder / "half/config.json", cfg().to_json().encode())
    with refused(ValueError, "model.safetensors is missing"):
        load(folder / "half")


def test_factored_matrices_refuse_shapes_and_numbers_that_cannot_be():
    with refused(ValueError, "got [[2, 3], [2, 3]]"):
        FactoredMatrix(torch.zeros(2, 3), torch.zeros(2, 3))
    with refused(IndexError, "5 indices for the 4 dims [2, 3, 12, 12]"):
        model.OV[0, 0, 0, 0, 0]
    with refused(ValueError, "trace needs a square product, got [2, 4]"):
        FactoredMatrix(torch.zeros(2, 3), torch.zeros(3, 4)).trace()
    with refused(ValueError, "no eigenvalues: the product holds numbers that are not finite"):
        _ = FactoredMatrix(torch.full((2, 3), torch.nan), torch.zeros(3, 2)).eigenvalues


def test_heads_are_named_by_layer_and_number():
    with refused(ValueError, "got (1.5, 0)"):
        algebra.virtual_OV(model, [(1.5, 0)])
    with refused(ValueError, "got (1, 0, 0)"):
        algebra.virtual_OV(model, [(1, 0, 0)])
    with refused(ValueError, "named like 'L1H4' or (1, 4), got 1"):
        algebra.virtual_OV(model, [1])
    with refused(ValueError, "the writer's layer must be before"):
        algebra.K_composed_QK(model, 0, 1)


def test_a_decomposition_reads_the_cache_of_a_run():
    with refused(ValueError, "the Cache of run_with_cache, got dict"):
        residual.components(model, {})


def test_text_files_are_named_in_errors(folder):
    with refused(ValueError, "nowhere.txt does not exist"):
        list(documents(folder / "nowhere.txt"))
    file = written(folder / "latin.txt", b"caf\xe9 au lait")
    with refused(ValueError, "latin.txt is not UTF-8 text: invalid continuation byte at byte 3"):
        list(documents(file))
    (folder / "empty").mkdir()
    with refused(ValueError, "no text in"):
        list(documents(folder / "empty"))
    with refused(ValueError, "no file matches"):
        list(documents(folder / "*.nothing"))


def test_windows_need_documents_and_a_share():
    with refused(ValueError, "there are no documents"):
        Windows([], 8, 0)
    with refused(ValueError, "repeats must be a share of the rows, from 0 to 1; got 2.0"):
        Windows([np.zeros(3, dtype=np.uint16)], 8, 0, repeats=2.0)


def test_synthetic_data_refuses_what_cannot_be_drawn():
    with refused(ValueError, "2 triggers out of 1 tokens that occur"):
        synthetic.BigramTriggers(torch.zeros(9).long(), 3, triggers=2)
    with refused(ValueError, "order must be from 1 to length - 1, got 3 for 3"):
        synthetic.MarkovChains(2, length=3, order=3)
    with refused(ValueError, "doubly_stochastic needs order 1, got 2"):
        synthetic.MarkovChains(2, order=2, doubly_stochastic=True)
    with refused(ValueError, "the parent of position 1 must be before it: 1"):
        synthetic.CausalGraph([None, 1])
    with refused(ValueError, "a graph needs at least one position"):
        synthetic.CausalGraph([])


def test_shards_need_text(folder):
    with refused(ValueError, "holds no shards: index.json is missing"):
        Shards(folder)
    with refused(ValueError, "there is no text: `texts` gave no"):
        shards([], vocabulary, folder, sources=["no text"])


def test_a_recipe_refuses_numbers_that_make_no_sense():
    with refused(ValueError, "steps must be a finite number above 0, got 0"):
        Recipe(steps=0, batch_size=1)
    with refused(ValueError, "batch_size must be a whole number, got 1.5"):
        Recipe(steps=2, batch_size=1.5)
    with refused(ValueError, "bf16 must be True or False, got 1"):
        Recipe(steps=2, batch_size=1, bf16=1)
    with refused(ValueError, "a batch of 6 rows cannot be cut into accumulate=4 equal parts"):
        Recipe(steps=2, batch_size=6, accumulate=4)
    with refused(ValueError, "a recipe has no ['stepz']; its fields"):
        Recipe.from_json('{"stepz": 2}')


def test_a_run_that_diverges_stops():
    data, recipe = (
        RepeatedTokens(29, shortest=3, longest=5),
        Recipe(steps=50, batch_size=2, lr=1e30),
    )
    with refused(ValueError, "lower lr or muon_lr"):
        list(train(GPT(cfg()), data, recipe))


def test_two_snapshots_or_more_are_kept(folder):
    with refused(ValueError, "keep must be at least 2, got 1"):
        Snapshots(folder=folder, keep=1)


def test_prompts_and_patterns_fit_into_the_context():
    with refused(ValueError, "are 19; the model reads at least 2"):
        prompts.repeated(model, 9)
    with refused(ValueError, "offset 99 does not fit into 16 tokens"):
        attention.offset(model, back=99)
    with refused(
        ValueError, "no destination in these tokens has anything to match for 'prefix_matching'"
    ):
        attention.prefix_matching(model, torch.arange(8)[None])


def test_histories_that_do_not_exist_are_refused(folder):
    with refused(KeyError, "'repeats-2l' has no history; of the models"):
        dynamics.history("repeats-2l")
    with refused(KeyError, "did you mean 'repeats-2l'?"):
        dynamics.history("repeats-3l")
    with refused(ValueError, "holds no recorded steps"):
        recording.collect(folder / "nothing", folder)


def test_pictures_refuse_data_of_another_kind():
    with refused(ValueError, "wanted a pattern [head dest src], got"):
        plots.attention(torch.zeros(3, 3))
    with refused(KeyError, "no figure 'framework/nonsense'"):
        figures.draw("framework/nonsense", model)
    with refused(ValueError, "over_chance; got OV"):
        plots.composition(copying.score(talker))
    with refused(ValueError, "composition less chance"):
        plots.wiring(head_composition.raw(talker, samples=1))


def test_composition_wants_two_layers_and_random_models():
    with refused(ValueError, "two layers or more are needed, the model has 1"):
        head_composition.over_chance(GPT(cfg(n_layers=1)))
    with refused(ValueError, "the model has 0"):
        head_composition.erratum(GPT(cfg(n_layers=0)))
    with refused(ValueError, "random models, 1 or more, got 0"):
        head_composition.raw(model, samples=0)


def test_copying_refuses_heads_that_do_not_exist():
    with refused(ValueError, "L1H0 is in the last layer"):
        copying.composed_qk_score(model, "L1H0")
    with refused(ValueError, "there is no head L0H3"):
        copying.composed_qk_score(model, "L0H3")
    with refused(ValueError, "top is from 1 to d_vocab=29, got 0"):
        copying.own_top(model, 0)


def test_tables_of_skip_trigrams_need_a_tokenizer():
    with refused(ValueError, "the model has no tokenizer"):
        skip_trigrams.copying_table(model)
    with refused(ValueError, "the model has no tokenizer"):
        skip_trigrams.split_table(model)
    with refused(ValueError, "the model has no tokenizer"):
        skip_trigrams.pattern_counts(model)


def test_tables_of_skip_trigrams_refuse_heads_and_tokens_that_do_not_exist():
    with refused(ValueError, "there is no head L2H0"):
        skip_trigrams.table(talker, "L2H0", "o")
    with refused(ValueError, "'one two' is "):
        skip_trigrams.table(talker, "L0H0", "one two")
    with refused(ValueError, "no token 262: they are 0 to 261"):
        skip_trigrams.table(talker, "L0H0", 262)


def test_tables_of_skip_trigrams_have_rows_and_columns():
    with refused(ValueError, "to d_vocab=262, got 263"):
        skip_trigrams.table(talker, "L0H0", "o", top=263)
    with refused(ValueError, "to d_vocab=262, got 0"):
        skip_trigrams.copying_table(talker, top=0)
    with refused(ValueError, "'OV' and 'QK', got 'VO'"):
        skip_trigrams.top_entries(talker, "L0H0", "VO")
    with refused(ValueError, "got k=0"):
        skip_trigrams.top_entries(talker, "L0H0", k=0)
    with refused(ValueError, "1 or more, got 0"):
        skip_trigrams.triples(talker, "L0H0", n=0)
    with refused(ValueError, "expected one token or more, got none"):
        skip_trigrams.bug_grid(talker, "L0H0", "o", destinations=[], outs=["n"])
    with refused(ValueError, "two right pairs (destination, out) or more, got [('n', 'e')]"):
        skip_trigrams.bugs(talker, "L0H0", "o", [("n", "e")])


def test_a_report_wants_figures_that_exist_and_a_folder_of_its_own(folder):
    with refused(ValueError, "holds files that no report wrote ("):
        report.write(folder)
    with refused(
        KeyError,
        "no figure 'framework/cornr': did you mean 'framework/corner'? there are ['framework/",
    ):
        report.write(folder / "r", ["framework/cornr"])
    with refused(KeyError, "mean 'framework/eigenvalues'?"):
        report.write(folder / "r", ["eigenvalue"])
    with refused(ValueError, "processes, 1 or more, got 0"):
        report.write(folder / "r", jobs=0)


def test_a_task_refuses_unknown_choices():
    with refused(ValueError, "replace='noise'; choose one of ['run', 'mean', 'zero', 'resample']"):
        Task(model, tokens, tokens, first, replace="noise")
    with refused(ValueError, "into='dirty'; choose one of ['clean', 'corrupted']"):
        patching.heads(Task(talker, tokens, tokens, first), into="dirty")
    with refused(ValueError, "must have the same shape"):
        Task(talker, tokens, tokens[:, 1:], first)
    with refused(ValueError, "along='edges'; choose inputs or activations"):
        discovery.eap_ig(Task(talker, tokens, tokens, first), along="edges")
