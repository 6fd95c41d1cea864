"""A history says what was true of the model at each step, and a killed run's is the whole run's."""

import math
import shutil

import numpy as np
import pytest
import torch

from analyses import ablation, attention, dynamics, in_context, losses, passages, prompts, recording
from analyses.history import step_files
from circuits import GPT, GPTConfig, ground_truth, load
from circuits.data import RepeatedTokens
from circuits.io import folder_of
from circuits.training import Progress, Recipe, Snapshots, train
from tests.conftest import tiny, tiny_tokens

SHAPE = {"n_layers": 2, "d_model": 16, "n_heads": 2, "d_head": 8, "d_vocab": 32, "n_ctx": 31}
ROWS = RepeatedTokens(32, shortest=15, longest=15, seed=1).batch(0, 8)


def run(folder, until=None):
    gpt, steps = GPT(GPTConfig(**SHAPE)), recording.history_steps(12, 3)
    kept = []

    def watch(model: GPT, progress: Progress) -> bool:
        if progress.step in steps:
            recording.record(model, progress, ROWS, folder / "history")
        kept[:] = progress.losses
        return progress.step == until

    recipe = Recipe(steps=12, batch_size=4, evaluate_every=12)
    data = RepeatedTokens(32, shortest=15, longest=15)
    snapshots = Snapshots(folder=folder / "snapshots", every=3)
    list(train(gpt, data, recipe, snapshots=snapshots, watch=watch))
    return gpt, steps, kept


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    return folder, *run(folder)


def test_steps_are_dense_at_first_on_a_log_scale_and_then_evenly():
    steps = recording.history_steps(10_000)
    assert 120 <= len(steps) <= 151 and steps[:4] == [0, 1, 2, 3] and steps[-1] == 10_000
    gaps = np.diff(steps)
    assert (np.diff(gaps[:-1]) >= 0).all() and gaps.min() == 1 and set(gaps[-60:-1]) == {100}
    assert recording.history_steps(3) == [0, 1, 2, 3]


def test_losses_are_those_of_the_model(variant):
    rows = tiny_tokens(batch=5, pos=12)
    assert torch.allclose(
        losses.of_tokens(variant, rows).double(),
        variant(rows, return_type="loss", loss_per_token=True),
        atol=1e-5,
    )


def test_a_history_is_read_back_as_it_was_measured(tmp_path, whole):
    trained, gpt, steps, step_losses = whole
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    for _ in range(2):  # while it trains, and collected
        seen = dynamics.history(tmp_path)
        assert seen.step.values.tolist() == steps
        assert np.allclose(seen.step_loss, step_losses, atol=1e-6)
        last = losses.of_tokens(gpt, ROWS)
        assert np.isclose(seen.held_out[-1], last.mean(), atol=1e-6)
        assert np.allclose(seen.loss_by_index[-1], last.mean(0), atol=1e-5)
        assert seen.index.values.tolist() == list(range(1, 31))
        assert np.isnan(seen.train_loss[0])
        a, b = steps[-2:]
        assert np.isclose(seen.train_loss[-1], np.mean(step_losses[a:b]), atol=1e-5)
        assert seen.tokens.values.tolist() == [step * 4 * 30 for step in steps]
        now = attention.prefix_matching(gpt)
        assert np.allclose(seen.prefix_matching.sel(step=12), now, atol=1e-3)
        assert seen.label.sel(layer=1, head=0) == "L1H0"
        recording.collect(tmp_path / "history", tmp_path)
    (tmp_path / "config.json").write_text(gpt.cfg.to_json())
    for file in (tmp_path / "history").iterdir():
        file.unlink()
    (tmp_path / "history").rmdir()
    assert dynamics.history(tmp_path).identical(seen)


def test_the_history_of_a_run_in_pieces_is_that_of_the_run_in_one(tmp_path, whole):
    for until in (4, 9, None):
        run(tmp_path / "pieces", until)
    pieces = dynamics.history(tmp_path / "pieces").drop_attrs(deep=False)
    assert pieces.identical(dynamics.history(whole[0]).drop_attrs(deep=False))


def test_token_losses_are_of_the_same_places_at_every_step(whole):
    folder, gpt, *_ = whole
    kept = dynamics.history(folder).token_loss
    every = sorted(losses.of_tokens(gpt, ROWS).flatten().half().float().tolist())
    assert kept.sizes["token"] == 8 * 30  # all there are, when they are few
    assert np.allclose(sorted(kept[-1].values), every)


def test_the_hand_built_circuit_has_the_history_it_must_have(tmp_path):
    """Its composed QK trace is sharpness * V, its in-context score what the repeat saves."""
    answers = ground_truth.Induction()
    model = answers.model
    rows = prompts.repeated(model, 15, batch=40)
    recording.record(model, Progress(), rows, tmp_path / "history")
    seen = dynamics.history(tmp_path).isel(step=0)
    assert np.allclose(seen.qk_trace, [[0], [100 * 20]], rtol=1e-3)
    assert seen.prefix_matching[1, 0] > 0.999 and seen.prefix_matching[0, 0] < 0.1
    assert np.isclose(seen.previous_token[0, 0], 1, atol=1e-3)
    saved = answers.loss_after_repeat - math.log(20)
    assert np.isclose(seen.in_context_score, saved, atol=1e-3)
    assert dynamics.formed(dynamics.history(tmp_path)).values[1, 0] == 0


def test_an_untrained_model_forms_nothing(tmp_path):
    model = tiny(dtype=torch.float32)
    recording.record(model, Progress(), tiny_tokens(40, 16), tmp_path / "history")
    assert dynamics.formed(dynamics.history(tmp_path)).isnull().all()


@pytest.mark.parametrize("layers", [0, 1])
def test_models_without_a_second_layer_have_a_history_too(tmp_path, layers):
    model = tiny(dtype=torch.float32, n_layers=layers)
    recording.record(model, Progress(), tiny_tokens(4, 16), tmp_path / "history")
    seen = dynamics.history(tmp_path)
    assert seen.prefix_matching.shape == (1, layers, 3) and (seen.qk_trace == 0).all()


def test_what_ablation_adds_is_recorded_and_attributed_to_a_change(whole):
    folder, gpt, *_ = whole
    seen = dynamics.history(folder)
    rise = ablation.of_heads(gpt, ROWS)
    assert np.allclose(seen.ablated_loss[-1], rise, atol=1e-3)
    n = ROWS.shape[1] - 1
    example, index = torch.ones(8, n).nonzero().unbind(-1)
    whole_loss, without = ablation.losses(gpt, ROWS, example, index)
    added = without - whole_loss
    early, late = (np.s_[part] for part in losses.early_and_late(n))
    by_index = added.reshape(*rise.shape, 8, n).mean(-2)
    score = by_index[..., late].mean(-1) - by_index[..., early].mean(-1)
    assert np.allclose(seen.ablated_in_context[-1], score, atol=1e-3)
    change = (seen.token_loss.sel(step=12) - seen.token_loss.sel(step=0)).values
    unit = change / np.linalg.norm(change)
    kept_example, kept_index = recording._vector(8, n)
    kept = added.reshape(*rise.shape, 8, n)[..., kept_example, kept_index].double().numpy()
    attributed = dynamics.attribution(seen, 0, 12)  # few steps: the directions hold all of it
    assert np.allclose(attributed[-1], kept @ unit / math.sqrt(8 * n), atol=2e-4)
    with pytest.raises(KeyError, match="step 99 was not recorded; the nearest recorded step is 12"):
        dynamics.attribution(seen, 0, 99)
    with pytest.raises(ValueError, match="a change needs two different steps"):
        dynamics.attribution(seen, 3, 3)


def test_windows_and_the_story_are_recorded_beside_the_means(whole, tmp_path):
    folder, gpt, *_ = whole
    seen = dynamics.history(folder)
    loss = in_context.loss_by_index(gpt, ROWS)
    assert np.allclose(seen.window_loss[-1], loss.mean("index"), atol=1e-2)
    assert seen.window_score.shape == (seen.sizes["step"], len(ROWS))
    score = float(in_context.score(loss))
    assert float(seen.window_score[-1].mean()) == pytest.approx(score, abs=1e-2)
    n = seen.sizes["index"]
    at = [slice(round(share * n) - round(n / 64) - 1, round(share * n) + round(n / 64))
          for share in (0.25, 0.75)]  # fmt: skip
    first, third = (float(seen.loss_by_index[-1, part].mean()) for part in at)
    assert float(seen.window_gap[-1].mean()) == pytest.approx(third - first, abs=1e-2)
    assert seen.current_token.shape == seen.prefix_matching.shape
    assert "story_loss" not in seen  # a model without a tokenizer reads no story
    reader = load("attn-only-1l")
    entry = recording.history_entry(reader, passages.tokens(reader)[:2])
    tokens = reader.to_tokens(passages.passage("story"))[:, : reader.cfg.n_ctx + 1]
    assert np.allclose(entry["story_loss"], losses.of_tokens(reader, tokens)[0], atol=1e-2)


def test_ten_directions_hold_the_attributions_of_a_model_that_ships():
    seen = dynamics.history("attn-only-2l")
    change = seen.token_loss - seen.token_loss[-1]
    few = seen.isel(direction=slice(step_files.DIRECTIONS))
    assert float((few.loss_on**2).sum() / (change**2).sum()) > 0.9
    start, end, *_ = dynamics.phase_change(seen)
    with np.load(folder_of("attn-only-2l") / step_files.FILE) as file:
        along, step = file["ablated_along"].astype(float), file["step"].tolist()
        between = change.sel(step=end) - change.sel(step=start)
        exact = along[..., step.index(end)] - along[..., step.index(start)]
    exact = exact / float(np.sqrt((between**2).mean()))
    found = [dynamics.attribution(one, start, end).values for one in (seen, few)]
    missed = [abs(one - exact).max() / abs(exact).max() for one in found]
    assert missed[0] < 1e-5 and missed[1] < 0.1


def test_the_in_context_score_is_late_less_early_as_in_the_paper():
    loss = dynamics.DataArray(np.arange(1.0, 513), dims="index", coords={"index": range(1, 513)})
    score = in_context.score(loss)
    assert float(score) == 450  # token 500 less token 50
    assert score.long_name == "loss of tokens 492 to 508 less that of 42 to 58"


def test_a_long_run_stays_under_three_megabytes(tmp_path):
    """150 steps, 512 tokens of context, 3 layers of 4 heads, in numbers that do not compress."""
    rng = np.random.default_rng(0)
    (tmp_path / "history").mkdir()
    for step in range(150):
        noise = {name: rng.random((3, 4)).astype(np.float16) for name in dynamics.HEADS}
        for name, rest in [("loss", ()), ("in_context", ()), ("token_loss", (recording.VECTOR,))]:
            noise[f"ablated_{name}"] = rng.random((3, 4, 2, *rest)).astype(np.float16)
        np.savez(
            tmp_path / f"history/step-{step:08d}.npz", tokens=step, held_out=np.float32(3),
            step_loss=rng.random(min(step, 200)).astype(np.float32),
            loss_by_index=rng.random(512).astype(np.float32),
            token_loss=rng.random(recording.VECTOR).astype(np.float16), **noise,
        )  # fmt: skip
    recording.collect(tmp_path / "history", tmp_path)
    assert (tmp_path / step_files.FILE).stat().st_size < 3 * 2**20
