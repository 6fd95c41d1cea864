"""Hand-built circuits do what their closed forms say, to 1e-6 and for sizes drawn at random."""

import dataclasses
import math

import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from analyses import attention, copying, induction, prompts
from circuits import GPT, algebra, composition, ground_truth

EXACT = {"abs": 1e-6, "rel": 0}
PAPER = {"d_vocab": 20, "n_ctx": 64, "sharpness": 100.0, "gain": 12.0, "rest": 0.5}
few = settings(max_examples=4, deadline=None, phases=[Phase.generate])  # small as they come
sizes = st.fixed_dictionaries(
    {
        "d_vocab": st.integers(4, 24),
        "n_ctx": st.integers(50, 60),
        "gain": st.floats(0.5, 15.0),
        "rest": st.floats(0.25, 0.75),
    }
)
"Arguments of an induction circuit; the vocabulary said twice fits into the context."


def compositions(model: GPT, writer: int = 0, reader: int = 0) -> dict[str, float]:
    """By Q, K and V, of a head of layer 1 with a head of layer 0."""
    q, k, v = composition.scores(model)[:, 0, writer, 1, reader].tolist()
    return {"q": q, "k": k, "v": v}


def said_twice(model: GPT) -> torch.Tensor:
    """BOS + R + R with every token of the vocabulary in R."""
    return prompts.repeated(model, model.cfg.d_vocab - 1, batch=3)


def losses(model: GPT, tokens: torch.Tensor, hooks=()) -> torch.Tensor:
    return model.run_with_hooks(tokens, "loss", loss_per_token=True, fwd_hooks=list(hooks))


def second_half(loss: torch.Tensor) -> torch.Tensor:
    """Of BOS + R + R, what the first R predicts: all but the first token of the second."""
    return loss[:, loss.shape[1] // 2 + 1 :]


def kept(model: GPT, tokens: torch.Tensor) -> list:
    """Hooks that force the patterns of the untouched run."""
    _, clean = model.run_with_cache(tokens)
    return [("*.hook_pattern", lambda pattern, hook: clean[hook.name])]


def silent(*layers: int) -> list:
    return [(f"blocks.{i}.attn.hook_z", lambda z, hook: torch.zeros_like(z)) for i in layers]


def logits_by_order(model: GPT, tokens: torch.Tensor, orders: int = 3) -> list[torch.Tensor]:
    """Logits of all paths through at most 0, 1, ... heads (Elhage et al. 2021): patterns are
    frozen, and every head writes what it would have written in the run before; first nothing."""
    frozen, written, logits = kept(model, tokens), {}, []
    for _ in range(orders):
        now = {}

        def write(out, hook, now=now, written=written):
            now[hook.name] = out.clone()
            return written.get(hook.name, torch.zeros_like(out))

        hooks = [*frozen, ("*.hook_attn_out", write)]
        logits.append(model.run_with_hooks(tokens, fwd_hooks=hooks))
        written = now
    return logits


def losses_by_order(model: GPT, tokens: torch.Tensor) -> list[float]:
    log_probs = [logits.log_softmax(-1) for logits in logits_by_order(model, tokens)]
    index = tokens[:, 1:, None]
    return [
        second_half(-of[:, :-1].gather(-1, index).squeeze(-1)).mean().item() for of in log_probs
    ]


# --- induction by K-composition -------------------------------------------------------------------


@few
@given(sizes)
def test_induction_scores_and_losses_are_the_closed_forms(arguments):
    answers = ground_truth.Induction(**arguments)
    model = answers.model
    tokens = said_twice(model)
    loss, half = losses(model, tokens), model.cfg.d_vocab
    assert loss[:, :half].numpy() == pytest.approx(answers.loss_before_repeat, **EXACT)
    assert loss[:, half:].numpy() == pytest.approx(answers.loss_after_repeat, **EXACT)
    previous, prefix = attention.previous_token(model), attention.prefix_matching(model)
    assert previous.values[0, 0] == pytest.approx(answers.previous_token, **EXACT)
    assert prefix.values[1, 0] == pytest.approx(answers.prefix_matching, **EXACT)
    assert compositions(model) == pytest.approx(
        {"q": answers.q_composition, "k": answers.k_composition, "v": answers.v_composition},
        **EXACT,
    )


@few
@given(sizes)
def test_induction_circuits_have_the_eigenvalues_and_traces_of_the_closed_forms(arguments):
    answers = ground_truth.Induction(**arguments)
    model = answers.model
    OV, QK = algebra.full_OV(model)[1, 0], algebra.K_composed_QK(model, 1, 0)[0, 0]
    assert float(OV.trace()) == pytest.approx(answers.ov_trace, **EXACT)
    assert float(QK.trace()) == pytest.approx(answers.qk_trace, **EXACT)
    assert copying.positivity(OV).item() == pytest.approx(answers.ov_positivity, **EXACT)
    assert copying.positivity(QK).item() == pytest.approx(answers.qk_positivity, **EXACT)
    assert induction.copying(model).values[1, 0] == pytest.approx(answers.copying, **EXACT)
    others = OV.AB - OV.AB.diag().diag()
    top1 = (OV.AB.diag() > others.amax(-1)).double().mean().item()
    assert top1 == pytest.approx(answers.ov_top1, **EXACT)
    virtual = model.W_E @ model.OV[0, 0].AB @ model.OV[1, 0].AB @ model.W_U
    assert (virtual == answers.virtual_head).all()
    assert (answers.direct_path == model.W_E @ model.W_U).all()


@few
@given(sizes)
def test_induction_is_done_by_paths_of_one_head_and_patterns(arguments):
    answers = ground_truth.Induction(**arguments)
    model = answers.model
    by_order = losses_by_order(model, said_twice(model))
    assert by_order == pytest.approx(answers.loss_by_order, **EXACT)


@few
@given(sizes)
def test_ablating_the_previous_token_head_costs_all_or_nothing_by_whether_patterns_are_kept(
    arguments,
):
    answers = ground_truth.Induction(**arguments)
    model = answers.model
    tokens = said_twice(model)
    keep = kept(model, tokens)
    for layer, hooks, loss in (
        (0, [], answers.loss_without_previous),
        (0, keep, answers.loss_without_previous_patterns_kept),
        (1, [], answers.loss_without_induction),
        (1, keep, answers.loss_without_induction),
    ):
        after = second_half(losses(model, tokens, [*silent(layer), *hooks]))
        assert after.numpy() == pytest.approx(loss, **EXACT)


def test_what_matches_nothing_rests_on_bos_and_moves_nothing():
    for circuit in (ground_truth.Induction(), ground_truth.PointerInduction()):
        model = circuit.model
        _, cache = model.run_with_cache(prompts.random_tokens(model, model.cfg.d_vocab - 1))
        pattern = cache["pattern", 1][:, 0]
        assert pattern[:, 1:, 0].numpy() == pytest.approx(circuit.rest_on_bos, **EXACT)
        assert cache["v", 1][:, 0].abs().max() == 0
    moved = (cache["pattern", 1] * cache["v", 1].norm(dim=-1).mT[:, :, None])[..., 0]
    assert moved.abs().max() == ground_truth.Induction().moved_from_bos


def test_the_numbers_of_the_default_circuits_are_these():
    """Those of the closed forms that are easily remembered, at V = 20, P = 64, c = 100, g = 12."""
    answers = ground_truth.Induction(**PAPER)
    assert answers.loss_before_repeat == pytest.approx(2.99573, abs=1e-5)
    assert answers.loss_after_repeat == pytest.approx(1.16733e-4, abs=1e-9)
    assert answers.k_composition == pytest.approx(0.2)
    assert (answers.ov_trace, answers.qk_trace, answers.ov_top1) == (228, 2000, 0.95)
    pointers = ground_truth.PointerInduction(**PAPER)
    assert pointers.q_composition == pytest.approx(0.12030, abs=1e-5)
    assert ground_truth.VirtualHead().v_composition == pytest.approx(0.22361, abs=1e-5)
    among = ground_truth.InductionAmongDistractors(**PAPER)
    assert among.chance_composition == pytest.approx(0.0898, abs=1e-4)


# --- induction by Q-composition -------------------------------------------------------------------


@few
@given(sizes)
def test_pointer_induction_scores_and_losses_are_the_closed_forms(arguments):
    answers = ground_truth.PointerInduction(**arguments)
    model = answers.model
    tokens = said_twice(model)
    loss, half = losses(model, tokens), model.cfg.d_vocab
    assert loss[:, :half].numpy() == pytest.approx(answers.loss_before_repeat, **EXACT)
    assert loss[:, half:].numpy() == pytest.approx(answers.loss_after_repeat, **EXACT)
    assert losses_by_order(model, tokens) == pytest.approx(answers.loss_by_order, **EXACT)
    duplicate = attention.duplicate_token(model, tokens).values[0, 0]
    assert duplicate == pytest.approx(answers.duplicate_token, **EXACT)
    prefix = attention.prefix_matching(model, tokens).values[1, 0]
    assert prefix == pytest.approx(answers.prefix_matching, **EXACT)
    assert compositions(model) == pytest.approx(
        {"q": answers.q_composition, "k": answers.k_composition, "v": answers.v_composition},
        **EXACT,
    )
    OV = algebra.full_OV(model)[1, 0]
    assert float(OV.trace()) == pytest.approx(answers.ov_trace, **EXACT)
    assert copying.positivity(OV).item() == pytest.approx(answers.ov_positivity, **EXACT)
    assert (answers.direct_path == model.W_E @ model.W_U).all()
    virtual = model.W_E @ model.OV[0, 0].AB @ model.OV[1, 0].AB @ model.W_U
    assert (virtual == answers.virtual_head).all()


def test_both_ways_to_do_induction_have_their_roles_on_the_default_prompts():
    roles = attention.taxonomy(ground_truth.Induction().model).role
    assert roles.values.tolist() == [["previous token"], ["induction"]]
    roles = attention.taxonomy(ground_truth.PointerInduction().model).role
    assert roles.values.tolist() == [["duplicate token"], ["induction"]]


def test_pointers_to_several_copies_are_followed_while_each_outweighs_rest():
    tokens = torch.tensor([[0, *([1, 2, 3, 4, 5] * 4)]])
    light = ground_truth.PointerInduction(sharpness=500.0, rest=0.05).model
    assert attention.prefix_matching(light, tokens).values[1, 0] == pytest.approx(1, **EXACT)
    heavy = ground_truth.PointerInduction(sharpness=500.0, rest=0.4).model
    assert attention.prefix_matching(heavy, tokens).values[1, 0] < 0.7


# --- a virtual head by V-composition --------------------------------------------------------------


@few
@given(st.integers(3, 24), st.floats(0.5, 15.0))
def test_the_virtual_head_alone_predicts_the_token_two_back(d_vocab, gain):
    answers = ground_truth.VirtualHead(d_vocab, 40, gain=gain)
    model = answers.model
    tokens = prompts.random_tokens(model, 30)
    logits = model(tokens)
    assert (logits[:, 2:].argmax(-1) == tokens[:, :-2]).all()
    orders = logits_by_order(model, tokens)
    marginal = [orders[0], orders[1] - orders[0], orders[2] - orders[1]]
    largest = [logits.abs().max().item() for logits in marginal]
    assert largest == pytest.approx(answers.largest_logit_by_order, **EXACT)
    assert torch.allclose(orders[2], logits, atol=1e-9)
    in_threes = torch.arange(39)[None] % 3
    loss = losses(model, in_threes)[:, 2:]
    assert loss.numpy() == pytest.approx(answers.loss_of_period_three, **EXACT)


@few
@given(st.integers(2, 24), st.floats(0.5, 15.0))
def test_the_virtual_heads_pattern_and_circuit_are_the_closed_forms(d_vocab, gain):
    answers = ground_truth.VirtualHead(d_vocab, 40, gain=gain)
    model = answers.model
    tokens = prompts.random_tokens(model, 30)
    assert attention.previous_token(model, tokens).values == pytest.approx(1.0, **EXACT)
    _, cache = model.run_with_cache(tokens)
    virtual = cache["pattern", 1][:, 0] @ cache["pattern", 0][:, 0]
    two_back = virtual.diagonal(-2, 1, 2)
    assert two_back.numpy() == pytest.approx(answers.two_back, **EXACT)
    assert compositions(model) == pytest.approx(
        {"q": answers.q_composition, "k": answers.k_composition, "v": answers.v_composition},
        **EXACT,
    )
    OV = model.W_E @ (model.OV[0, 0] @ model.OV[1, 0]) @ model.W_U
    assert float(OV.trace()) == pytest.approx(answers.virtual_ov_trace, **EXACT)
    assert copying.positivity(OV).item() == pytest.approx(answers.virtual_ov_positivity, **EXACT)
    assert (answers.own_ov == algebra.full_OV(model).AB).all()
    assert (answers.direct_path == model.W_E @ model.W_U).all()


# --- all of them ----------------------------------------------------------------------------------

CIRCUITS = [name for name in ground_truth.__all__ if hasattr(getattr(ground_truth, name), "model")]


@pytest.mark.parametrize("name", CIRCUITS)
def test_a_circuit_is_a_frozen_gpt_in_float64(name):
    circuit = getattr(ground_truth, name)()
    model = circuit.model
    assert circuit.model is model and getattr(ground_truth, name)().model is not model
    assert isinstance(model, GPT) and not model.training
    for parameter in model.parameters():
        assert parameter.dtype == torch.float64 and not parameter.requires_grad
        assert torch.isfinite(parameter).all()


@pytest.mark.parametrize("name", CIRCUITS)
def test_circuits_are_frozen_and_those_of_the_arguments(name):
    circuit = getattr(ground_truth, name)
    with pytest.raises(dataclasses.FrozenInstanceError):
        circuit().gain = 1.0
    assert circuit() == circuit() and circuit() != circuit(gain=3.0)


def of(name: str, **arguments):
    """A circuit's name and the arguments it is asked for."""
    return pytest.param(name, arguments, id=f"{name}-{arguments}")


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        of("Induction", d_vocab=2),
        of("Induction", n_ctx=3),
        of("PointerInduction", d_vocab=0),
        of("VirtualHead", d_vocab=1),
        of("VirtualHead", n_ctx=2),
        of("SkipTrigramBug", d_vocab=5),
        of("SmearedInduction", n_ctx=1),
        of("StatisticalInduction", d_vocab=1),
        of("InductionAmongDistractors", distractors=0),
        of("Induction", gain=0.0),
        of("InductionExercise", gain=-1.0),
        of("Induction", rest=0.0),
        of("PointerInduction", rest=1.0),
        of("SmearedInduction", rest=-0.5),
        of("VirtualHead", sharpness=1.0),
        of("VirtualHead", sharpness=math.nan),
        of("StatisticalInduction", sharpness=math.inf),
        of("SkipTrigramBug", sharpness=10.0),
        of("VirtualHeadExercise", sharpness=30.0),
    ],
)
def test_bad_arguments_are_refused_in_words(name, arguments):
    (said,) = arguments
    with pytest.raises(ValueError, match=said) as error:
        getattr(ground_truth, name)(**arguments)
    assert any(word in str(error.value) for word in ("wants", "wanted", "want"))
