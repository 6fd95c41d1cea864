"""A history keeps the steps that can be read, and names the others."""

import numpy as np
import pytest

from analyses import dynamics, recording
from analyses.history import step_files


def filled(out, *names):
    for name in names:
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).write_text("mine")
    return out


STEPS = range(0, 50, 10)


def step(number, tokens=6):
    """A step as `record` writes it, of one head."""
    rng, head = np.random.default_rng(number), {"prefix_matching", "copying", "previous_token",
                                                "qk_trace"}  # fmt: skip
    ablated = ("ablated_loss", "ablated_in_context")
    return {
        "tokens": np.array(100 * number),
        "step_loss": np.arange(max(0, number - 10), number, dtype=np.float32),
        "held_out": np.float32(3),
        "loss_by_index": rng.random(8, dtype=np.float32),
        "token_loss": rng.random(tokens).astype(np.float16),
        **{name: rng.random((1, 1)).astype(np.float16) for name in sorted(head)},
        **{name: rng.random((1, 1, 2)).astype(np.float16) for name in ablated},
        "ablated_token_loss": rng.random((1, 1, 2, tokens)).astype(np.float16),
    }


def harmed(folder, harm):
    file = folder / "history" / "step-00000020.npz"
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 255
    if harm == "stray":
        filled(folder, "history/step-foo.npz")
    elif harm == "missing":
        file.unlink()
    elif harm == "other rows":
        np.savez(file, **step(20, tokens=5))
    elif harm == "pickled":
        np.savez(file, **{**step(20), "held_out": np.array([{}], dtype=object)})
    else:
        file.write_bytes(
            {"empty": b"", "cut": bytes(content[:-99]), "flipped": bytes(content)}[harm]
        )


HARMS = ["empty", "cut", "flipped", "pickled", "stray", "missing", "other rows"]


@pytest.fixture
def history(tmp_path):
    (tmp_path / "history").mkdir()
    for number in STEPS:
        np.savez_compressed(tmp_path / f"history/step-{number:08d}.npz", **step(number))
    return tmp_path


@pytest.mark.parametrize("harm", HARMS)
@pytest.mark.filterwarnings("ignore:.*left out of the history")
def test_a_step_that_cannot_be_read_is_left_out_and_moves_no_other(history, harm):
    harmed(history, harm)
    seen = dynamics.history(history)
    there = [number for number in STEPS if harm == "stray" or number != 20]
    assert seen.step.values.tolist() == there
    known = [number for number in range(40) if 20 in there or not 10 <= number < 20]
    assert np.flatnonzero(seen.step_loss.notnull()).tolist() == known
    assert (seen.step_loss.values[known] == known).all()
    recording.collect(history / "history", history, [float(i) for i in range(40)])
    assert (dynamics.history(history).step_loss == np.arange(40)).all()


@pytest.mark.parametrize(("harm", "named"), [
    ("empty", "step-00000020.npz is left out.*EOFError"), ("stray", "step-foo.npz is left out"),
    ("other rows", "step 20 is left out of the history: its arrays differ")])  # fmt: skip
def test_what_is_left_out_is_named(history, harm, named):
    harmed(history, harm)
    with pytest.warns(UserWarning, match=named):
        step_files.stack_steps(history / "history")


def test_a_damaged_history_is_an_error_with_its_file(history):
    recording.collect(history / "history", history)
    whole, arrays = (history / "history.npz").read_bytes(), step_files.arrays_of(
        history / "history.npz"
    )  # fmt: skip
    for content in (b"", whole[:-50], b"garbled", whole[: len(whole) // 2]):
        (history / "history.npz").write_bytes(content)
        with pytest.raises(ValueError, match=r"history\.npz cannot be read"):
            dynamics.history(history)
    for name, value in [("copying", arrays["copying"][1:]), ("step", arrays["tokens"][1:])]:
        np.savez(history / "history.npz", **{**arrays, name: value})
        with pytest.raises(ValueError, match=r"history\.npz is not a whole history"):
            dynamics.history(history)
    arrays.pop("tokens")
    np.savez(history / "history.npz", **arrays)
    with pytest.raises(ValueError, match=r"history\.npz is not a whole history"):
        dynamics.history(history)


def test_a_run_that_an_earlier_version_began_keeps_all_its_steps(history):
    file = history / "history" / "step-00000040.npz"
    later = {name: np.zeros(3, np.float16) for name in step_files.LATER}
    np.savez(file, **{**step_files.arrays_of(file), **later})
    arrays = step_files.stack_steps(history / "history")
    assert arrays["step"].tolist() == list(STEPS) and not set(later) & set(arrays)
