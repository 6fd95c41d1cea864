"""Files of weights are read whole, or refused, and nothing in them is run."""

import json
import pickle

import pytest
import torch
from safetensors.torch import save_file

from circuits.io import from_state_dict, read_weights
from tests.conftest import tiny


class Armed:
    """Runs code when it is unpickled without care."""

    def __reduce__(self):
        return exec, ("raise SystemExit('a checkpoint ran code')",)


def armed(file):
    file.write_bytes(pickle.dumps({"embed.W_E": Armed()}, protocol=2))


def armed_inside_a_zip(file):
    torch.save({"embed.W_E": Armed()}, file)


def cut(file):
    torch.save(tiny().state_dict(), file)
    file.write_bytes(file.read_bytes()[:-900])


def noise(file):
    file.write_bytes(bytes(torch.randint(0, 256, (4000,), dtype=torch.uint8).tolist()))


@pytest.mark.parametrize(("write", "message"), [
    (armed, "and nothing in it was run"), (armed_inside_a_zip, "and nothing in it was run"),
    (cut, "is no checkpoint of plain tensors"), (noise, "is no checkpoint of plain tensors"),
    (lambda file: file.write_bytes(b""), "is no checkpoint of plain tensors"),
    (lambda file: torch.save([torch.ones(2)], file), "holds list, expected tensors by name"),
    (lambda file: torch.save({"embed.W_E": 1.0}, file), "expected tensors by name"),
    (lambda file: None, "is missing")])  # fmt: skip
def test_a_hostile_or_damaged_pickle_runs_nothing_and_is_refused(write, message, tmp_path):
    write(tmp_path / "model.pth")
    with pytest.raises(ValueError, match=message):
        read_weights(tmp_path / "model.pth")


@pytest.mark.parametrize("change", [
    lambda header: header["embed.W_E"].update(shape=[29, 10**12]),
    lambda header: header["embed.W_E"].update(data_offsets=[0, 10**15]),
    lambda header: header["embed.W_E"].update(dtype="F16")])  # fmt: skip
def test_a_safetensors_file_with_a_lying_header_is_refused(change, tmp_path):
    file = tmp_path / "model.safetensors"
    save_file({name: weight.contiguous() for name, weight in tiny().state_dict().items()}, file)
    content = file.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    change(header)
    lying = json.dumps(header).encode()
    file.write_bytes(len(lying).to_bytes(8, "little") + lying + content[8 + length :])
    with pytest.raises(ValueError, match="is not a whole safetensors file"):
        read_weights(file)
    file.write_bytes((2**62).to_bytes(8, "little") + content[8:])
    with pytest.raises(ValueError, match="is not a whole safetensors file"):
        read_weights(file)


def test_a_checkpoint_of_a_training_says_where_its_weights_are(tmp_path):
    file = tmp_path / "run.pth"
    torch.save({"step": 3, "model": tiny().state_dict()}, file)
    with pytest.raises(ValueError, match=r"weights_only=True\)\['model'\]"):
        from_state_dict(tiny().cfg, file)
    inside = torch.load(file, weights_only=True)["model"]
    assert from_state_dict(tiny().cfg, inside).cfg == tiny().cfg
