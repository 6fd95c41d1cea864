"""Several processes train the model that one would, and a dead one ends the job with an error."""

import functools
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.torch_version import TorchVersion

from circuits import distributed, load
from circuits.training import Snapshots, sharded
from tests.training import under_torchrun

needs_fsdp = pytest.mark.skipif(
    torch.__version__ < sharded.SINCE, reason="weights are shared out by newer releases of torch"
)
ROOT = Path(__file__).parent.parent.parent


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    folder = tmp_path_factory.mktemp("alone")
    under_torchrun.run(folder)
    return folder


def losses(folder):
    return torch.tensor(json.loads((folder / "losses.json").read_text()), dtype=torch.float64)


def alike(a, b):
    models = [load(folder / "model", dtype=torch.float64) for folder in (a, b)]
    pairs = zip(*(model.parameters() for model in models), strict=True)
    return torch.allclose(losses(a), losses(b), rtol=1e-9) and all(
        torch.allclose(p, q, atol=1e-6) for p, q in pairs
    )


def test_two_processes_give_the_curve_and_the_model_of_one_with_twice_the_batch(tmp_path, alone):
    assert under_torchrun.pair(under_torchrun.run, tmp_path) == [0, 0]
    assert alike(tmp_path, alone)


@needs_fsdp
def test_weights_shared_out_among_processes_give_the_model_of_one_also_after_a_pause(
    tmp_path, alone
):
    for until in (7, None):
        run = functools.partial(under_torchrun.run, shard=True, until=until)
        assert under_torchrun.pair(run, tmp_path) == [0, 0]
    assert alike(tmp_path, alone)


@needs_fsdp
def test_one_process_has_nobody_to_share_weights_with(tmp_path):
    with pytest.raises(ValueError, match="run it under torchrun"):
        under_torchrun.run(tmp_path, shard=True)


def test_weights_are_not_shared_out_by_a_torch_that_cannot(tmp_path, monkeypatch):
    monkeypatch.setattr(torch, "__version__", TorchVersion("2.12.1+cpu"))
    with pytest.raises(ValueError, match=r"torch 2.13 or newer, this is torch 2.12.1\+cpu"):
        under_torchrun.run(tmp_path, shard=True)


@pytest.mark.slow
def test_a_killed_worker_ends_the_job_with_an_error_and_one_process_can_go_on(tmp_path, alone):
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*launch, "--standalone", "-m", "tests.training.under_torchrun", str(tmp_path), "10"],
        cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True,
        timeout=100, check=False,
    )  # fmt: skip
    assert done.returncode != 0 and "SIGKILL" in done.stderr, done.stderr
    files = Snapshots(folder=tmp_path / "snapshots").files()
    assert [file.stem for file in files] == ["step-00000004", "step-00000008"]
    assert not (tmp_path / "losses.json").exists()
    under_torchrun.run(tmp_path)
    assert alike(tmp_path, alone)


def test_without_a_group_there_is_one_process_that_has_all_rows():
    rows = torch.arange(6).reshape(3, 2)
    assert (distributed.rank(), distributed.world()) == (0, 1)
    assert distributed.share(rows).equal(rows) and distributed.of_rank_0(7, rows.device) == 7
    with distributed.group("gloo"):
        assert distributed.world() == 1
