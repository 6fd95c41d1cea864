"""A run that is killed, starved of disk or handed a damaged file ends as if nothing had been."""

import errno
import multiprocessing
import os
import random
import resource
import signal
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from analyses.cli.run_folder import INNER
from circuits import GPT, GPTConfig, save
from circuits.data import RepeatedTokens
from circuits.files import LOCK
from circuits.training import Progress, Recipe, Snapshots, snapshots, train
from tests.training.small import DATA, RECIPE, SHAPE, model, run


def run_and_save(folder, slowly=0.0):
    """What a process that may be killed does; as slowly as it takes to be hit in mid-run."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    gpt, records = run(folder, every=1, weights_at=range(27), watch=lambda *_: time.sleep(slowly))
    save(gpt, folder / "model", overwrite=True)
    (folder / "records").write_text(repr(records))


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    run_and_save(folder)
    return folder


def same_weights(a, b):
    return all(p.equal(q) for p, q in zip(a.parameters(), b.parameters(), strict=True))


def stopped(folder, step, **options):
    """A run that ends early: after `step` steps there is a snapshot, and nothing goes on."""
    torch.manual_seed(0)
    return run(folder, watch=lambda gpt, progress: progress.step == step, **options)


def test_a_run_killed_at_random_moments_ends_bit_for_bit_equal(tmp_path, uninterrupted):
    processes = multiprocessing.get_context("forkserver")
    # Imported once, dynamo too, which an optimizer's first step would import for two seconds.
    processes.set_forkserver_preload(["circuits.training", "torch._dynamo"])
    killed_at = []
    while not (tmp_path / "records").exists():
        patience = random.uniform(0.0, 0.25) if len(killed_at) < 4 else 60.0
        process = processes.Process(target=run_and_save, args=(tmp_path, 0.01))
        before = Snapshots(folder=tmp_path / "snapshots").files()
        process.start()
        while Snapshots(folder=tmp_path / "snapshots").files() == before and process.is_alive():
            time.sleep(0.005)
        process.join(patience)
        if process.is_alive():
            os.kill(process.pid, signal.SIGKILL)
        process.join()
        killed_at.append(Snapshots(folder=tmp_path / "snapshots").files()[-1].stem)
    assert len(killed_at) > 2 and killed_at == sorted(killed_at), killed_at
    weights = [f"snapshots/weights-{step:08d}.safetensors" for step in range(27)]
    for file in ("records", "model/model.safetensors", *weights):
        assert (tmp_path / file).read_bytes() == (uninterrupted / file).read_bytes(), killed_at


@pytest.mark.parametrize("step", [1, 7, 20])
def test_a_run_in_two_pieces_is_the_run_in_one(tmp_path, step):
    whole, records = stopped(tmp_path / "whole", 26)
    stopped(tmp_path / "pieces", step)
    torch.manual_seed(99)  # the snapshot's generator state counts, not this
    again, joined = run(tmp_path / "pieces", gpt=model())
    assert joined == records and same_weights(again, whole)


def test_a_finished_run_says_its_records_again_and_trains_no_more(tmp_path):
    first, records = run(tmp_path)
    steps = []
    again, said = run(tmp_path, watch=lambda gpt, progress: steps.append(progress.step))
    assert said == records and same_weights(again, first) and steps == [26]


def test_the_last_two_snapshots_stay_and_weights_where_asked(tmp_path):
    kept = Snapshots(folder=tmp_path, every=5, weights_at=(0, 8, 26))
    gpt = model()
    list(train(gpt, DATA, RECIPE, snapshots=kept))
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == [
        *(f"step-{step:08d}.safetensors" for step in (25, 26)),
        *(f"weights-{step:08d}.safetensors" for step in (0, 8, 26)),
    ]
    half = load_file(tmp_path / names[-1])
    assert all(half[name].equal(w.half()) for name, w in gpt.state_dict().items())


@pytest.mark.parametrize("harm", ["cut short", "a bit flipped", "empty"])
def test_a_damaged_snapshot_is_named_and_the_one_before_it_serves(tmp_path, harm):
    whole, records = stopped(tmp_path / "whole", 26)
    stopped(tmp_path / "hurt", 23)
    *_, older, newest = Snapshots(folder=tmp_path / "hurt/snapshots").files()
    damage(newest, harm)
    with pytest.warns(UserWarning, match=rf"{newest.name}.*resuming from step 20"):
        again, joined = run(tmp_path / "hurt")
    assert older.stem == "step-00000020" and joined == records and same_weights(again, whole)


def damage(file: Path, harm: str) -> None:
    content = bytearray(file.read_bytes())
    if harm == "a bit flipped":
        content[-100] ^= 4
    file.write_bytes(content[: {"cut short": -7, "empty": 0}.get(harm, len(content))])


def test_with_every_snapshot_damaged_nothing_is_trained_over_them(tmp_path):
    stopped(tmp_path, 23)
    files = Snapshots(folder=tmp_path / "snapshots").files()
    for file in files:
        damage(file, "cut short")
    with pytest.raises(ValueError, match=r"no snapshot in .* can be read: .*step-00000023"):
        run(tmp_path)
    assert Snapshots(folder=tmp_path / "snapshots").files() == files


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"recipe": Recipe(steps=26, batch_size=4, lr=1e-3, muon_lr=0.02, evaluate_every=7)},
         "recipe: lr was 0.003 and is 0.001 now"),
        ({"gpt": GPT(GPTConfig(**{**SHAPE, "d_head": 4}))}, "config: d_head was 8 and is 4 now"),
        ({"data": RepeatedTokens(32, shortest=4, longest=15, seed=1)},
         "data: hash of the first batches was '.*' and is"),
    ],
)  # fmt: skip
def test_another_recipe_config_or_data_is_refused_and_nothing_lost(tmp_path, change, message):
    stopped(tmp_path, 23)
    before = [file.read_bytes() for file in Snapshots(folder=tmp_path / "snapshots").files()]
    with pytest.raises(ValueError, match=message):
        run(tmp_path, **change)
    files = Snapshots(folder=tmp_path / "snapshots").files()
    assert [file.read_bytes() for file in files] == before


def test_a_full_disk_is_an_error_and_the_run_goes_on_when_there_is_room(tmp_path):
    whole, records = stopped(tmp_path / "whole", 26)
    stopped(tmp_path / "starved", 20)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))  # a write beyond it fails
    try:
        with pytest.raises(
            OSError, match=r"could not write .*step-00000025.*step-00000020"
        ) as full:
            run(tmp_path / "starved")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert full.value.errno == errno.EFBIG
    names = {path.name for path in (tmp_path / "starved/snapshots").iterdir()}
    assert names == {"step-00000015.safetensors", "step-00000020.safetensors"}
    again, joined = run(tmp_path / "starved")
    assert joined == records and same_weights(again, whole)


def test_a_diverging_run_stops_with_the_step_and_the_last_good_snapshot(tmp_path):
    class Breaks:
        def batch(self, step, size):
            if step == 12:  # as if the weights had run away
                with torch.no_grad():
                    gpt.unembed.W_U.fill_(torch.inf)
            return DATA.batch(step, size)

    gpt = model()
    with pytest.raises(ValueError, match=r"the loss is nan .* at step 12: .*step-00000010"):
        run(tmp_path, gpt=gpt, data=Breaks())


def test_weights_that_are_not_finite_are_never_written(tmp_path):
    gpt = model()
    with torch.no_grad():
        gpt.W_E[0, 0] = torch.nan
    with pytest.raises(ValueError, match=r"embed.W_E is not finite after step 0"):
        run(tmp_path, gpt=gpt)
    assert not Snapshots(folder=tmp_path / "snapshots").files()


def test_who_asks_for_no_gradients_trains_all_the_same():
    recipe = Recipe(steps=2, batch_size=4)
    models = model(), model()
    list(train(models[0], DATA, recipe))
    with torch.no_grad():
        list(train(models[1], DATA, recipe))
        assert not torch.is_grad_enabled()
    assert same_weights(*models)


def test_a_folder_of_snapshots_is_locked_while_a_run_goes_on(tmp_path):
    snapshots = Snapshots(folder=tmp_path)
    begun = train(model(), DATA, RECIPE, snapshots=snapshots)
    next(begun)
    with pytest.raises(ValueError, match="another process is at work"):
        next(train(model(), DATA, RECIPE, snapshots=snapshots))
    begun.close()
    assert not (tmp_path / LOCK).exists()
    assert list(train(model(), DATA, RECIPE, snapshots=snapshots))[-1]["step"] == RECIPE.steps


def test_a_snapshot_is_written_at_each_record_unless_another_number_is_given(tmp_path):
    list(train(model(), DATA, RECIPE, snapshots=Snapshots(folder=tmp_path, keep=9)))
    steps = [int(file.stem[-8:]) for file in Snapshots(folder=tmp_path).files()]
    assert steps == [0, 7, 14, 21, 26]


def test_snapshots_take_their_folder_as_text_and_leave_what_is_no_snapshot(tmp_path):
    (tmp_path / "step-foo.safetensors").write_text("mine")
    kept = Snapshots(folder=str(tmp_path))
    for number in range(4):
        kept.write({}, Progress(step=number), {})
    assert len(kept.files()) == 2 and (tmp_path / "step-foo.safetensors").read_text() == "mine"
    assert all(INNER["snapshots"].fullmatch(file.name) for file in kept.files())


def test_a_field_that_came_after_a_snapshot_is_no_change_while_it_is_off():
    was = {"config": {"n_layers": 2}}
    snapshots._check_same(
        was, {"config": {"n_layers": 2, "gated": False, "dim": None}}, Path("run")
    )
    with pytest.raises(ValueError, match="config: gated was None and is True now"):
        snapshots._check_same(was, {"config": {"n_layers": 2, "gated": True}}, Path("run"))
    with pytest.raises(ValueError, match="config: n_layers was 2 and is None now"):
        snapshots._check_same(was, {"config": {}}, Path("run"))
