"""Bad input at every door: what the message says, to users who run without the type checker.

The other tests run with jaxtyping and beartype on, which would refuse most of this first; so all
calls are made in one process without them.
"""

import functools
import json
import subprocess
import sys
from pathlib import Path

import pytest

PREPARE = """
import json, sys, tempfile
from pathlib import Path
import numpy as np
import torch
from tokenizers import Tokenizer
import circuits
from circuits import GPT, FactoredMatrix, GPTConfig, algebra, load, residual, save
from circuits.data import synthetic
from circuits.data import RepeatedTokens, Windows, documents, train_tokenizer
from circuits.io import load_weights
from circuits.data import Shards, shards
from circuits.model import Vocabulary
from circuits.training import Recipe, Snapshots, train
from analyses import (Task, attention, head_composition, copying, discovery, dynamics, figures,
                      induction, patching, plots, prompts, recording, report, skip_trigrams)
def first(logits): return logits[:, 0]
TINY = dict(n_layers=2, d_model=12, n_heads=3, d_head=5, d_vocab=29, n_ctx=16)
def cfg(**fields): return GPTConfig(**{**TINY, **fields})
model, tokens = GPT(cfg()), torch.zeros(1, 4, dtype=torch.long)
vocabulary = train_tokenizer(["one two one two one"], 262)
talker = GPT(cfg(d_vocab=262), vocabulary)
folder = Path(tempfile.mkdtemp())
save(model, folder / "saved")
def written(name, content):
    file = folder / name
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(content)
    return file
def damaged(name, **change):
    weights = {k: v.clone() for k, v in model.state_dict().items()}
    for key, value in change.items():
        key = key.replace("__", ".")
        weights.pop(key) if value is None else weights.update({key: value})
    load_weights(model, weights)
"""

CASES = [
    # config
    ("cfg(n_layer=2)", "TypeError", "no field 'n_layer'; did you mean 'n_layers'?"),
    ("cfg(attn_only=True)", "TypeError", "'attn_only'; leave d_mlp out"),
    ("cfg(n_layers=-1)", "ValueError", "n_layers must be a whole number >= 0, got -1"),
    ("cfg(d_model=0)", "ValueError", "d_model must be a whole number >= 1, got 0"),
    ("cfg(d_head=2.5)", "ValueError", "d_head must be a whole number >= 1, got 2.5"),
    ("cfg(n_ctx=True)", "ValueError", "n_ctx must be a whole number >= 1, got True"),
    ("cfg(d_mlp=0, act_fn='relu')", "ValueError", "d_mlp must be a whole number >= 1, or None"),
    ("cfg(d_mlp=5)", "ValueError", "act_fn=None is not supported; choose"),
    ("cfg(act_fn='relu')", "ValueError", "act_fn='relu' would do nothing: d_mlp is None"),
    ("cfg(d_mlp=5, act_fn='relu2')", "ValueError", "act_fn='relu2' is not supported; choose"),
    ("cfg(attention_dir='left')", "ValueError", "attention_dir='left' is not supported; choose"),
    ("cfg(d_vocab_out=0)", "ValueError", "d_vocab_out must be a whole number >= 1, or None"),
    ("model(tokens, attention_mask=torch.ones(1, 5))", "ValueError",
     "attention_mask must be [1, 4], got [1, 5]"),
    ("model(tokens, attention_mask=torch.ones(1, 4, 1))", "ValueError",
     "attention_mask must be [1, 4], got [1, 4, 1]"),
    ("talker.to_padded_tokens(['a'], padding_side='top')", "ValueError",
     "padding_side='top'; choose left or right"),
    ("model(tokens, attention_maks=tokens)", "TypeError", "'attention_maks'"),
    ("cfg(normalization_type='BN')", "ValueError", "normalization_type='BN' is not supported"),
    ("cfg(positional_embedding_type='rotary')", "ValueError", "'rotary' is not supported; choose"),
    ("cfg(sinusoid_base=9.0)", "ValueError", "sinusoid_base=9.0 would do nothing"),
    ("cfg(bias='yes')", "ValueError", "bias must be True or False, got 'yes'"),
    ("cfg(attn_scale=0.0)", "ValueError", "attn_scale must be a number > 0, got 0.0"),
    ("cfg(eps=float('nan'))", "ValueError", "eps must be a number > 0, got nan"),
    # tokens and text
    ("model(torch.tensor([[1, 29]]))", "ValueError",
     "token 29 at batch 0, position 1 is outside of the vocabulary: d_vocab=29"),
    ("model(torch.tensor([[1, -1]]))", "ValueError", "token -1 at batch 0, position 1"),
    ("model(torch.zeros(1, 18, dtype=torch.long))", "ValueError",
     "18 tokens are 2 more than the context of n_ctx=16"),
    ("model(torch.zeros(1, 0, dtype=torch.long))", "ValueError", "not empty, got [1, 0]"),
    ("model(torch.zeros(1, 2, 3, dtype=torch.long))", "ValueError", "got [1, 2, 3]"),
    ("model(torch.zeros(1, 2))", "ValueError", "tokens must be integers, got torch.float32"),
    ("model('text')", "ValueError", "no tokenizer: give it tokens"),
    ("talker.to_tokens(['one', 'one two'])", "ValueError", "one common length"),
    ("talker.to_single_token('one two')", "ValueError", "'one two' is "),
    ("Vocabulary(Tokenizer.from_str(json.dumps({'version': '1.0', 'truncation': None, 'padding': "
     "None, 'added_tokens': [], 'normalizer': None, 'pre_tokenizer': None, 'post_processor': None, "
     "'decoder': None, 'model': {'type': 'BPE', 'vocab': {}, 'merges': []}})))", "ValueError",
     "no '<|endoftext|>' token"),
    # the model
    ("model(tokens, 'logit')", "ValueError", "return_type='logit'; choose logits, loss, both"),
    ("model(tokens, attention_maks=None)", "TypeError", "attention_maks"),
    ("model.run_with_cache(tokens, stop_at_layr=1)", "TypeError", "stop_at_layr"),
    ("model(tokens, stop_at_layer=3)", "ValueError", "layer 3 does not exist: the model has 2"),
    ("model(tokens, start_at_layer=1)", "ValueError", "wants a stream [batch pos 12], got [1, 4]"),
    ("model(torch.zeros(1, 18, 12), start_at_layer=1)", "ValueError", "are 2 more than"),
    ("model(torch.zeros(1, 4, 12), start_at_layer=2, stop_at_layer=1)", "ValueError",
     "cannot start at layer 2 and stop before layer 1"),
    ("model(tokens, 'loss', stop_at_layer=1)", "ValueError", "a loss wants return_type='loss'"),
    ("model(tokens, loss_per_token=True)", "ValueError", "a loss wants return_type='loss'"),
    ("model(tokens[:, :1], 'loss')", "ValueError", "the loss needs at least two tokens"),
    ("model.W_in", "ValueError", "attention-only: it has no W_in"),
    ("GPT(cfg(positional_embedding_type='none')).W_pos", "ValueError", "has no positions"),
    # hooks and cache
    ("model.run_with_hooks(tokens, fwd_hooks=[('blocks.0.attn.hook_paterm', print)])", "KeyError",
     "no hook point matches 'blocks.0.attn.hook_paterm'; the nearest are ['blocks.0.attn.hook_pat"),
    ("model.run_with_cache(tokens, names_filter='blocks.9.*')", "KeyError", "matches 'blocks.9.*'"),
    ("model.run_with_cache(tokens)[1]['result', 0]", "KeyError", "it is kept only when named"),
    ("model.run_with_hooks(tokens, fwd_hooks=[('embed', lambda x, hook: 1.0)])", "TypeError",
     "the hook on 'hook_embed' returned float"),
    ("model.run_with_hooks(tokens, fwd_hooks=[('embed', lambda x, hook: x[0])])", "ValueError",
     "returned shape [4, 12]; the activation is [1, 4, 12]"),
    ("model.run_with_hooks(tokens, stop_at_layer=1, fwd_hooks=[('blocks.1.hook_resid_pre', "
     "lambda x, hook: x)])", "ValueError", "a hook was never called: the run did not come"),
    ("model.run_with_hooks(tokens, fwd_hooks=[(lambda name: False, print)])", "ValueError",
     "a hook was never called"),
    ("model.add_hook('embed', print, 'forward')", "ValueError",
     "dir must be one of ['fwd', 'bwd']"),
    # models on disk
    ("load('attn-only-2L')", "KeyError", "did you mean 'attn-only-2l'?"),
    ("load(folder)", "KeyError", "a folder must hold config.json and model.safetensors"),
    ("save(model, folder / 'saved')", "ValueError", "already holds a model; pass overwrite=True"),
    ("damaged('x', embed__W_E=torch.zeros(3, 12))", "ValueError",
     "embed.W_E is [3, 12] in the checkpoint, and [29, 12] by the config"),
    ("damaged('x', embed__W_E=None)", "ValueError", "lacks ['embed.W_E']"),
    ("damaged('x', extra=torch.zeros(1))", "ValueError", "the model has no ['extra']"),
    ("damaged('x', embed__W_E=torch.full((29, 12), torch.nan))", "ValueError",
     "embed.W_E in the checkpoint holds a number that is not finite"),
    ("(written('bad/config.json', b'{'), load(folder / 'bad'))", "ValueError", "config.json: "),
    ("(written('cut/config.json', cfg().to_json().encode()), "
     "written('cut/model.safetensors', (folder / 'saved/model.safetensors').read_bytes()[:900]), "
     "load(folder / 'cut'))", "ValueError", "is not a whole safetensors file"),
    ("(written('half/config.json', cfg().to_json().encode()), load(folder / 'half'))",
     "ValueError", "model.safetensors is missing"),
    # circuits
    ("FactoredMatrix(torch.zeros(2, 3), torch.zeros(2, 3))", "ValueError", "got [[2, 3], [2, 3]]"),
    ("model.OV[0, 0, 0, 0, 0]", "IndexError", "5 indices for the 4 dims [2, 3, 12, 12]"),
    ("FactoredMatrix(torch.zeros(2, 3), torch.zeros(3, 4)).trace()", "ValueError",
     "trace wants a square product, got [2, 4]"),
    ("FactoredMatrix(torch.full((2, 3), torch.nan), torch.zeros(3, 2)).eigenvalues", "ValueError",
     "no eigenvalues: the product holds numbers that are not finite"),
    ("algebra.virtual_OV(model, [(1.5, 0)])", "ValueError", "got (1.5, 0)"),
    ("algebra.virtual_OV(model, [(1, 0, 0)])", "ValueError", "got (1, 0, 0)"),
    ("algebra.virtual_OV(model, [1])", "ValueError", "named like 'L1H4' or (1, 4), got 1"),
    ("residual.components(model, {})", "ValueError", "the Cache of run_with_cache, got dict"),
    ("algebra.K_composed_QK(model, 0, 1)", "ValueError", "the writer's layer must be before"),
    # data and training
    ("list(documents(folder / 'nowhere.txt'))", "ValueError", "nowhere.txt does not exist"),
    ("list(documents(written('latin.txt', b'caf\\xe9 au lait')))", "ValueError",
     "latin.txt is not UTF-8 text: invalid continuation byte at byte 3"),
    ("list(documents((folder / 'empty', (folder / 'empty').mkdir())[0]))", "ValueError",
     "no text in"),
    ("Windows([], 8, 0)", "ValueError", "there are no documents"),
    ("Windows([np.zeros(3, dtype=np.uint16)], 8, 0, repeats=2.0)", "ValueError",
     "repeats is a share of the windows, from 0 to 1; got 2.0"),
    ("synthetic.BigramTriggers(torch.zeros(9).long(), 3, triggers=2)", "ValueError",
     "2 triggers out of 1 tokens that occur"),
    ("synthetic.MarkovChains(2, length=3, order=3)", "ValueError",
     "order must be from 1 to length - 1, got 3 for 3"),
    ("synthetic.MarkovChains(2, order=2, doubly_stochastic=True)", "ValueError",
     "doubly_stochastic wants order 1, got 2"),
    ("synthetic.CausalGraph([None, 1])", "ValueError",
     "the parent of position 1 must be before it: 1"),
    ("synthetic.CausalGraph([])", "ValueError", "a graph needs at least one position"),
    ("Shards(folder)", "ValueError", "holds no shards: index.json is missing"),
    ("shards([], vocabulary, folder, sources=['no text'])", "ValueError",
     "there is no text: not one document came"),
    ("list(documents(folder / '*.nothing'))", "ValueError", "no file matches"),
    ("Recipe(steps=0, batch_size=1)", "ValueError", "steps must be a finite number above 0, got 0"),
    ("list(train(model, RepeatedTokens(29, shortest=3, longest=5), Recipe(steps=50, batch_size=2, "
     "lr=1e30)))", "ValueError", "lower lr or muon_lr"),
    ("Recipe(steps=2, batch_size=1.5)", "ValueError", "batch_size must be a whole number, got 1.5"),
    ("Recipe(steps=2, batch_size=1, bf16=1)", "ValueError", "bf16 must be True or False, got 1"),
    ("Recipe(steps=2, batch_size=6, accumulate=4)", "ValueError",
     "a batch of 6 rows cannot be cut into accumulate=4 equal parts"),
    ("Recipe.from_json('{\"stepz\": 2}')", "ValueError", "a recipe has no ['stepz']; its fields"),
    ("Snapshots(folder=folder, keep=1)", "ValueError", "keep must be at least 2, got 1"),
    # analyses
    ("prompts.repeated(model, 9)", "ValueError", "are 19; the model reads at least 2"),
    ("attention.offset(model, back=99)", "ValueError", "offset 99 does not fit into 16 tokens"),
    ("attention.prefix_matching(model, torch.arange(8)[None])", "ValueError",
     "no destination in these tokens has anything to match for 'prefix_matching'"),
    ("dynamics.history('repeats-2l')", "KeyError", "'repeats-2l' has no history; of the models"),
    ("dynamics.history('repeats-3l')", "KeyError", "did you mean 'repeats-2l'?"),
    ("recording.collect(folder / 'nothing', folder)", "ValueError", "holds no recorded steps"),
    ("plots.attention(torch.zeros(3, 3))", "ValueError", "wanted a pattern [head dest src], got"),
    ("figures.draw('framework/nonsense', model)", "KeyError", "no figure 'framework/nonsense'"),
    ("skip_trigrams.copying_table(model)", "ValueError", "the model has no tokenizer"),
    ("head_composition.over_chance(GPT(cfg(n_layers=1)))", "ValueError",
     "two layers or more are wanted, the model has 1"),
    ("head_composition.erratum(GPT(cfg(n_layers=0)))", "ValueError", "the model has 0"),
    ("head_composition.raw(model, samples=0)", "ValueError", "random models, 1 or more, got 0"),
    ("plots.composition(copying.score(talker))", "ValueError", "over_chance; got OV"),
    ("plots.wiring(head_composition.raw(talker, samples=1))", "ValueError",
     "composition less chance"),
    ("copying.composed_qk_score(model, 'L1H0')", "ValueError", "L1H0 is in the last layer"),
    ("copying.composed_qk_score(model, 'L0H3')", "ValueError", "there is no head L0H3"),
    ("copying.own_top(model, 0)", "ValueError", "top is from 1 to d_vocab=29, got 0"),
    ("skip_trigrams.split_table(model)", "ValueError", "the model has no tokenizer"),
    ("skip_trigrams.pattern_counts(model)", "ValueError", "the model has no tokenizer"),
    ("skip_trigrams.table(talker, 'L2H0', 'o')", "ValueError", "there is no head L2H0"),
    ("skip_trigrams.table(talker, 'L0H0', 'one two')", "ValueError", "'one two' is "),
    ("skip_trigrams.table(talker, 'L0H0', 262)", "ValueError", "no token 262: they are 0 to 261"),
    ("skip_trigrams.table(talker, 'L0H0', 'o', top=263)", "ValueError", "to d_vocab=262, got 263"),
    ("skip_trigrams.copying_table(talker, top=0)", "ValueError", "to d_vocab=262, got 0"),
    ("skip_trigrams.top_entries(talker, 'L0H0', 'VO')", "ValueError", "'OV' and 'QK', got 'VO'"),
    ("skip_trigrams.top_entries(talker, 'L0H0', k=0)", "ValueError", "got k=0"),
    ("skip_trigrams.triples(talker, 'L0H0', n=0)", "ValueError", "1 or more, got 0"),
    ("skip_trigrams.bug_grid(talker, 'L0H0', 'o', destinations=[], outs=['n'])", "ValueError",
     "wanted one token or more, got none"),
    ("skip_trigrams.bugs(talker, 'L0H0', 'o', [('n', 'e')])", "ValueError",
     "two right pairs (destination, out) or more, got [('n', 'e')]"),
    ("report.write(folder)", "ValueError", "holds files that are no report ("),
    ("report.write(folder / 'r', ['framework/cornr'])", "KeyError",
     "no figure 'framework/cornr': did you mean 'framework/corner'? there are ['framework/"),
    ("report.write(folder / 'r', ['eigenvalue'])", "KeyError", "mean 'framework/eigenvalues'?"),
    ("report.write(folder / 'r', jobs=0)", "ValueError", "processes, 1 or more, got 0"),
    # discovery
    ("Task(model, tokens, tokens, first, replace='noise')", "ValueError",
     "replace='noise'; choose one of ['run', 'mean', 'zero', 'resample']"),
    ("patching.heads(Task(talker, tokens, tokens, first), into='dirty')", "ValueError",
     "into='dirty'; choose one of ['clean', 'corrupted']"),
    ("Task(talker, tokens, tokens[:, 1:], first)", "ValueError", "must have the same shape"),
    ("discovery.eap_ig(Task(talker, tokens, tokens, first), along='edges')", "ValueError",
     "along='edges'; choose inputs or activations"),
]  # fmt: skip


@functools.cache
def answers() -> dict[str, tuple[str, str]]:
    calls = json.dumps([call for call, _, _ in CASES])
    script = f"""{PREPARE}
answers = {{}}
for call in json.loads({calls!r}):
    try:
        answers[call] = ("nothing", repr(eval(call)))
    except Exception as error:
        answers[call] = (type(error).__name__, str(error.args[0]) if error.args else "")
print(json.dumps(answers))
"""
    root = Path(__file__).parent.parent.parent
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, cwd=root, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize(("call", "kind", "message"), CASES, ids=[call[:60] for call, *_ in CASES])
def test_bad_input_is_refused_in_words(call, kind, message):
    raised, said = answers()[call]
    assert (raised, message in said) == (kind, True), f"{raised}: {said}"
