import numpy as np
import torch

from circuits.data import Windows, tokenize, train_tokenizer


def windows(**options):
    docs = [np.arange(1, n, dtype=np.uint16) for n in (30, 55, 17)]
    return Windows(docs, n_ctx=12, bos=0, **options)


def stream(data):
    return data.span(0, data.tokens)


def test_tokenised_documents_decode_to_what_they_were():
    texts = ["the cat sat", "on the mat\n"]
    vocabulary = train_tokenizer(texts, 270)
    assert [vocabulary.to_string(row.tolist()) for row in tokenize(texts, vocabulary)] == texts


def test_every_token_is_a_target_once_in_an_epoch():
    data = windows()
    rows = data.batch(0, data.per_epoch)
    targets = rows[:, 1:].flatten().bincount(minlength=60)
    expected = torch.from_numpy(np.bincount(stream(data), minlength=60))
    wrapped = data.per_epoch * 12 - data.tokens
    assert (targets - expected).sum() == wrapped and (targets >= expected).all()


def test_every_window_begins_with_bos_and_then_follows_the_stream():
    data = windows()
    for row in data.batch(3, 5):
        assert row[0] == 0 and len(row) == 13
        doubled = np.concatenate([stream(data), stream(data)])
        found = [i for i in range(data.tokens) if (doubled[i : i + 12] == row[1:].numpy()).all()]
        assert found


def test_a_batch_depends_on_step_and_seed_alone():
    a, b = windows(seed=1, repeats=0.5), windows(seed=1, repeats=0.5)
    a.batch(0, 4)  # an earlier read must not matter
    assert a.batch(9, 4).equal(b.batch(9, 4))
    assert not a.batch(9, 4).equal(a.batch(10, 4))
    assert not a.batch(9, 4).equal(windows(seed=2, repeats=0.5).batch(9, 4))


def test_a_share_of_windows_repeats_a_passage():
    rng = np.random.default_rng(0)
    docs = [rng.permutation(np.arange(1, 60000, dtype=np.uint16))]  # natural repeats: none
    rows = Windows(docs, 64, 0, repeats=0.3).batch(0, 1000)
    repeating = torch.tensor([len(set(row.tolist())) < 40 for row in rows])
    assert abs(repeating.float().mean() - 0.3) < 0.05
    for row in rows[repeating][:20].tolist():
        assert any(row[1 + n :] == row[1 : len(row) - n] for n in range(8, 33))
