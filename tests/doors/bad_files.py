"""Bad input to files, data and training: what users see, without the type checker.

Run this file alone, also in a debugger: pytest -o addopts= tests/doors/bad_files.py.
The other tests run with jaxtyping and beartype on, which would refuse most of this first; so
test_doors.py starts a second pytest without them.
"""

import numpy as np
import torch

from circuits import GPT, FactoredMatrix, algebra, load, residual, save
from circuits.data import (
    RepeatedTokens,
    Shards,
    Windows,
    documents,
    shards,
    synthetic,
)
from circuits.training import Recipe, Snapshots, train
from tests.doors.given import cfg, damaged, model, refused, vocabulary, written


def test_models_are_loaded_by_their_name_and_not_written_over(folder):
    with refused(KeyError, "did you mean 'attn-only-2l'?"):
        load("attn-only-2L")
    with refused(KeyError, "a folder must hold config.json and model.safetensors"):
        load(folder)
    with refused(ValueError, "already holds a model; pass overwrite=True"):
        save(model, folder / "saved")


def test_weights_that_do_not_fit_are_named():
    with refused(ValueError, "embed.W_E is [3, 12] in the checkpoint, but [29, 12] by the config"):
        damaged(embed__W_E=torch.zeros(3, 12))
    with refused(ValueError, "lacks ['embed.W_E']"):
        damaged(embed__W_E=None)
    with refused(ValueError, "the model has no ['extra']"):
        damaged(extra=torch.zeros(1))
    with refused(ValueError, "embed.W_E in the checkpoint holds a number that is not finite"):
        damaged(embed__W_E=torch.full((29, 12), torch.nan))


def test_damaged_folders_are_refused_with_the_file(folder):
    written(folder / "bad/config.json", b"{")
    with refused(ValueError, "config.json: "):
        load(folder / "bad")
    written(folder / "cut/config.json", cfg().to_json().encode())
    weights = (folder / "saved/model.safetensors").read_bytes()
    written(folder / "cut/model.safetensors", weights[:900])
    with refused(ValueError, "is not a whole safetensors file"):
        load(folder / "cut")
    written(folder / "half/config.json", cfg().to_json().encode())
    with refused(ValueError, "model.safetensors is missing"):
        load(folder / "half")


def test_factored_matrices_refuse_shapes_and_numbers_that_cannot_be():
    with refused(ValueError, "got [[2, 3], [2, 3]]"):
        FactoredMatrix(torch.zeros(2, 3), torch.zeros(2, 3))
    with refused(IndexError, "5 indices for the 4 dims [2, 3, 12, 12]"):
        model.OV[0, 0, 0, 0, 0]
    with refused(ValueError, "trace needs a square product, got [2, 4]"):
        FactoredMatrix(torch.zeros(2, 3), torch.zeros(3, 4)).trace()
    with refused(ValueError, "no eigenvalues: the product holds numbers that are not finite"):
        _ = FactoredMatrix(torch.full((2, 3), torch.nan), torch.zeros(3, 2)).eigenvalues


def test_heads_are_named_by_layer_and_number():
    with refused(ValueError, "got (1.5, 0)"):
        algebra.virtual_OV(model, [(1.5, 0)])
    with refused(ValueError, "got (1, 0, 0)"):
        algebra.virtual_OV(model, [(1, 0, 0)])
    with refused(ValueError, "named like 'L1H4' or (1, 4), got 1"):
        algebra.virtual_OV(model, [1])
    with refused(ValueError, "the writer's layer must be before"):
        algebra.K_composed_QK(model, 0, 1)


def test_a_decomposition_reads_the_cache_of_a_run():
    with refused(ValueError, "the Cache of run_with_cache, got dict"):
        residual.components(model, {})


def test_text_files_are_named_in_errors(folder):
    with refused(ValueError, "nowhere.txt does not exist"):
        list(documents(folder / "nowhere.txt"))
    file = written(folder / "latin.txt", b"caf\xe9 au lait")
    with refused(ValueError, "latin.txt is not UTF-8 text: invalid continuation byte at byte 3"):
        list(documents(file))
    (folder / "empty").mkdir()
    with refused(ValueError, "no text in"):
        list(documents(folder / "empty"))
    with refused(ValueError, "no file matches"):
        list(documents(folder / "*.nothing"))


def test_windows_need_documents_and_a_share():
    with refused(ValueError, "there are no documents"):
        Windows([], 8, 0)
    with refused(ValueError, "repeats must be a share of the rows, from 0 to 1; got 2.0"):
        Windows([np.zeros(3, dtype=np.uint16)], 8, 0, repeats=2.0)


def test_synthetic_data_refuses_what_cannot_be_drawn():
    with refused(ValueError, "2 triggers out of 1 tokens that occur"):
        synthetic.BigramTriggers(torch.zeros(9).long(), 3, triggers=2)
    with refused(ValueError, "order must be from 1 to length - 1, got 3 for 3"):
        synthetic.MarkovChains(2, length=3, order=3)
    with refused(ValueError, "doubly_stochastic needs order 1, got 2"):
        synthetic.MarkovChains(2, order=2, doubly_stochastic=True)
    with refused(ValueError, "the parent of position 1 must be before it: 1"):
        synthetic.CausalGraph([None, 1])
    with refused(ValueError, "a graph needs at least one position"):
        synthetic.CausalGraph([])


def test_shards_need_text(folder):
    with refused(ValueError, "holds no shards: index.json is missing"):
        Shards(folder)
    with refused(ValueError, "there is no text: `texts` gave no"):
        shards([], vocabulary, folder, sources=["no text"])


def test_a_recipe_refuses_numbers_that_make_no_sense():
    with refused(ValueError, "steps must be a finite number above 0, got 0"):
        Recipe(steps=0, batch_size=1)
    with refused(ValueError, "batch_size must be a whole number, got 1.5"):
        Recipe(steps=2, batch_size=1.5)
    with refused(ValueError, "bf16 must be True or False, got 1"):
        Recipe(steps=2, batch_size=1, bf16=1)
    with refused(ValueError, "a batch of 6 rows cannot be cut into accumulate=4 equal parts"):
        Recipe(steps=2, batch_size=6, accumulate=4)
    with refused(ValueError, "a recipe has no ['stepz']; its fields"):
        Recipe.from_json('{"stepz": 2}')


def test_a_run_that_diverges_stops():
    data, recipe = (
        RepeatedTokens(29, shortest=3, longest=5),
        Recipe(steps=50, batch_size=2, lr=1e30),
    )
    with refused(ValueError, "lower lr or muon_lr"):
        list(train(GPT(cfg()), data, recipe))


def test_two_snapshots_or_more_are_kept(folder):
    with refused(ValueError, "keep must be at least 2, got 1"):
        Snapshots(folder=folder, keep=1)
