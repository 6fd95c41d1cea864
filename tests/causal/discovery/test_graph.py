"""What is no edge of the model, or cannot be asked of its edges, is refused in words."""

import pytest

from analyses import Task, discovery
from tests.causal.discovery.tasks import CLEAN, CORRUPTED, DIFFERENCE, SMALL, task_of
from tests.conftest import tiny


def test_what_cannot_be_asked_is_refused_in_words():
    model = tiny(**SMALL)
    with pytest.raises(ValueError, match=r"\[3, 6\] and corrupted tokens \[3, 5\]"):
        Task(model, CLEAN, CORRUPTED[:, :5], DIFFERENCE)
    with pytest.raises(ValueError, match="one number for each of 3 examples"):
        discovery.eap(task_of(model, metric=lambda logits: logits.mean().expand(2)))
    with pytest.raises(ValueError, match=r"the metric of the c.* run is"):
        discovery.eap(task_of(model, metric=lambda logits: logits[:, 0] / 0))
    with pytest.raises(ValueError, match="without layers"):
        discovery.exact(task_of(tiny(n_layers=0)))
    with pytest.raises(KeyError, match=r"no edge L1H0 > L0H0.Q: senders are .*'L1H1'"):
        discovery.circuit(model, [("L1H0", "L0H0.Q")])
    with pytest.raises(ValueError, match="wanted a boolean DataArray"):
        discovery.logits(task_of(model), discovery.edges(tiny(n_layers=1, **SMALL)))
    with pytest.raises(ValueError, match="at least 1"):
        discovery.eap_ig(task_of(model), 0)
    with pytest.raises(ValueError, match="wanted 99 of 42 edges"):
        discovery.top(discovery.eap(task_of(model)), 99)
    scores = discovery.eap(task_of(model))
    broken = scores.where((scores.sender != "L0H0") | (scores.receiver != "logits"))
    for choose in (discovery.top, discovery.greedy):
        with pytest.raises(ValueError, match="1 of the scores of edges are NaN"):
            choose(broken, 5)
