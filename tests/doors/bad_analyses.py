"""Bad input to analyses, figures and reports: what users see, without the type checker.

Run this file alone, also in a debugger: pytest -o addopts= tests/doors/bad_analyses.py.
The other tests run with jaxtyping and beartype on, which would refuse most of this first; so
test_doors.py starts a second pytest without them.
"""

import torch

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
from circuits import GPT
from tests.doors.given import cfg, first, model, refused, talker, tokens


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
