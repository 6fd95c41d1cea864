"""Searches keep what matters: nested, connected, and all or nothing at the ends."""

import numpy as np

from analyses import discovery, metrics
from tests.causal.discovery.tasks import random_task


def test_acdc_cuts_nothing_everything_and_what_costs_least():
    task = random_task(3, n_heads=1)
    whole = discovery.edges(task.model)
    assert discovery.acdc(task, -np.inf).equals(whole)
    assert not discovery.acdc(task, np.inf).any()
    some = discovery.acdc(task, 0.05)
    apart = metrics.divergence(discovery.logits(task, whole))
    assert 0 < some.sum() < whole.sum()
    assert np.isclose(some.attrs["distance"], apart(discovery.logits(task, some)).mean())
    assert discovery.connected_part(some).sum() <= some.sum()


def test_greedy_circuits_are_nested_and_lead_to_the_logits():
    effect = discovery.eap(random_task(2))
    sizes = [discovery.greedy(effect, n) for n in (1, 4, 12)]
    for n, kept in zip((1, 4, 12), sizes, strict=True):
        assert kept.sum() == n
        read = {name.partition(".")[0] for name in kept.receiver.values[kept.any("sender")]}
        assert read <= {"logits", *kept.sender.values[kept.any("receiver")]}
    assert not (sizes[0] & ~sizes[1]).any() and not (sizes[1] & ~sizes[2]).any()
