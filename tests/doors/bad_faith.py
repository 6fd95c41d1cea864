"""Files from disk, at random and in bad faith: they are read, or refused in words.

Run this file alone, also in a debugger: pytest -o addopts= tests/doors/bad_faith.py. test_doors.py
starts a second pytest for it, without the type checker, as users run, with 700 MB more than it has
after the imports: a crash, a hang or a bomb ends that process.
"""

import atexit
import dataclasses
import functools
import json
import math
import os
import pickle
import resource
import shutil
import struct
import tempfile
import zipfile
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from circuits import GPT, GPTConfig, load, save
from circuits.data import train_tokenizer
from circuits.io import config_of, from_state_dict
from circuits.model import config

quickly = functools.partial(settings, derandomize=True, deadline=None, database=None)
CFG = GPTConfig(n_layers=2, d_model=6, n_heads=2, d_head=3, d_vocab=262, n_ctx=8, d_mlp=4,
                act_fn="gelu")  # fmt: skip
REFUSED = (ValueError, KeyError, OSError)
MEGABYTE = 2**20


@functools.cache
def saved() -> Path:
    """A folder with a model in it, both as `save` writes it and as a .pth file."""
    folder = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, folder)
    model = GPT(CFG, train_tokenizer(["one two one two one"], 262))
    save(model, folder)
    torch.save(model.state_dict(), folder / "model.pth")
    return folder


def refusal(call, *given):
    """What a call raises, None if it comes back."""
    try:
        call(*given)
    except Exception as error:
        return error


# at random

JUNK = st.sampled_from(
    [-1, 0, 1.5, "wide", True, math.nan, math.inf, 10**400, -2.0, [], {"a": 1}, None]
)
SIZES = {
    name: st.integers(1, 5) for name in ("d_model", "n_heads", "d_head", "d_vocab", "n_ctx")
} | {"n_layers": st.integers(0, 2)}
OTHERS = {
    "d_mlp": st.none() | st.integers(1, 5),
    "act_fn": st.none() | st.sampled_from(config.ACTIVATIONS),
    "normalization_type": st.sampled_from(config.NORMALIZATIONS),
    "positional_embedding_type": st.sampled_from(config.POSITIONS),
    "sinusoid_base": st.none() | st.floats(1, 1e5), "sinusoid_scale": st.none() | st.floats(0.1, 9),
    "bias": st.booleans(), "smeared_keys": st.booleans(), "seed": st.integers(0, 9),
    "attn_scale": st.none() | st.floats(0.1, 9), "eps": st.floats(1e-6, 1.0),
    "init_range": st.floats(1e-4, 1.0),
    "attention_dir": st.sampled_from(getattr(config, "DIRECTIONS", ("causal",))),
    "d_vocab_out": st.none() | st.integers(1, 5),
}  # fmt: skip
COUNTS = {*SIZES, "d_mlp", "d_vocab_out"}
SMALL = JUNK.filter(lambda junk: junk != 10**400)  # a model of so many parts is never built
KNOWN = [field.name for field in dataclasses.fields(GPTConfig)]


@st.composite
def configs(draw) -> dict:
    """Fields of a config, mostly good ones, of which one or two may be junk or of another kind."""
    made = draw(st.fixed_dictionaries(SIZES, optional={
        name: value for name, value in OTHERS.items() if name in KNOWN}))  # fmt: skip
    whole = made.get("d_mlp") is not None and made.get("act_fn") is not None
    if not whole and draw(st.integers(0, 3)):  # else one without the other, which is refused
        made.pop("d_mlp", None), made.pop("act_fn", None)
    spoilt = draw(st.lists(st.sampled_from(KNOWN), max_size=1))
    return {**made, **{name: draw(SMALL if name in COUNTS else JUNK) for name in spoilt}}


@quickly(max_examples=100)
@given(configs())
def test_a_config_builds_and_runs_and_comes_back_or_its_field_is_named(fields):
    error = refusal(lambda: GPTConfig(**fields))
    if error is not None:
        assert isinstance(error, ValueError | TypeError), repr(error)
        assert any(name in str(error) for name in KNOWN), error
        return
    cfg = GPTConfig(**fields)
    assert GPTConfig.from_json(cfg.to_json()) == cfg
    model, tokens = GPT(cfg).eval(), torch.arange(2 * cfg.n_ctx).reshape(2, -1) % cfg.d_vocab
    logits = model(tokens)
    assert logits.shape == (2, cfg.n_ctx, getattr(cfg, "d_vocab_out", None) or cfg.d_vocab)
    assert logits.isfinite().all()
    with tempfile.TemporaryDirectory() as folder:
        save(model, folder)
        again = load(folder)
    assert again.cfg == cfg and again(tokens).equal(logits)


@st.composite
def spoilt(draw, content: bytes) -> bytes:
    """Random bytes, or the content cut short, or with some bits turned, most of them at its head or
    its tail, where its structure is."""
    kind = draw(st.sampled_from(["bytes", "cut", "turned", "turned"]))
    if kind == "bytes":
        return draw(st.binary(max_size=200))
    if kind == "cut":
        return content[: draw(st.integers(0, len(content) - 1))]
    spots = st.integers(0, len(content) - 1) | st.integers(0, min(len(content) - 1, 300))
    spots |= st.integers(max(0, len(content) - 300), len(content) - 1)
    turned = bytearray(content)
    for spot in draw(st.lists(spots, min_size=1, max_size=3)):
        turned[spot] ^= 1 << draw(st.integers(0, 7))
    return bytes(turned)


@quickly(max_examples=200)
@given(st.data())
def test_a_spoilt_file_is_read_or_refused_by_its_name(data):
    folder = saved()
    name = data.draw(st.sampled_from(
        ["model.safetensors", "model.pth", "config.json", "tokenizer.json"]))  # fmt: skip
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(data.draw(spoilt(content)))
    try:
        model = from_state_dict(CFG, folder / name) if name == "model.pth" else load(folder)
    except REFUSED as error:
        fits_no_more = name == "config.json" and "model.safetensors: " in str(error)
        assert f"{folder / name}" in str(error) or fits_no_more, error
    else:
        assert model(torch.zeros(1, 1).long()).shape[:2] == (1, 1)
    finally:
        (folder / name).write_bytes(content)


THEIRS = {"n_layers": 1, "d_model": 4, "d_head": 2, "d_vocab": 5, "n_ctx": 4, "act_fn": "relu"}
THEIR_FIELDS = ("n_layers", "d_model", "n_heads", "d_head", "d_vocab", "n_ctx", "d_mlp", "act_fn",
                "attn_only", "normalization_type", "eps", "attn_scale", "use_attn_scale",
                "use_local_attn", "window_size", "attn_types", "n_key_value_heads", "final_rms",
                "positional_embedding_type", "gated_mlp", "num_experts", "d_vocab_out")  # fmt: skip


@quickly(max_examples=100)
@given(st.dictionaries(st.sampled_from(THEIR_FIELDS), JUNK, min_size=1, max_size=2))
def test_a_foreign_config_is_read_or_refused_by_its_field(junk):
    error = refusal(lambda: config_of({**THEIRS, **junk}))
    if error is not None:
        assert isinstance(error, ValueError), repr(error)
        assert any(name in str(error) for name in (*junk, "act_fn")), error


# in bad faith: each test spoils a folder that holds a model, and then loads it


def with_config(**fields):
    def write(folder):
        own = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**own, **fields}))

    return write


def with_tokenizer(**fields):
    def write(folder):
        own = json.loads((folder / "tokenizer.json").read_text())
        (folder / "tokenizer.json").write_text(json.dumps({**own, **fields}))

    return write


def file(name, content):
    return lambda folder: (folder / name).write_bytes(content)


def with_header(change):
    """A safetensors file whose header says what is not so; `change` may give its text."""

    def write(folder):
        content = (folder / "model.safetensors").read_bytes()
        length = int.from_bytes(content[:8], "little")
        header = json.loads(content[8 : 8 + length])
        said = (change(header) or json.dumps(header)).encode()
        whole = struct.pack("<Q", len(said)) + said + content[8 + length :]
        (folder / "model.safetensors").write_bytes(whole)

    return write


def twice(header):
    again = json.dumps({"embed.W_E": header["unembed.W_U"]})
    return json.dumps(header)[:-1] + ", " + again[1:]


def far_weights(folder):
    weights = {name: w.double().contiguous() for name, w in load(folder).state_dict().items()}
    weights["embed.W_E"][0, 0] = 1e300
    save_file(weights, folder / "model.safetensors")


class Armed:
    def __reduce__(self):
        return exec, ("raise SystemExit('a checkpoint ran code')",)


def zipped(pickled, compression=zipfile.ZIP_STORED):
    def write(folder):
        torch.save({"embed.W_E": torch.zeros(10**6)}, folder / "plain.pth")
        plain = zipfile.ZipFile(folder / "plain.pth")
        with plain, zipfile.ZipFile(folder / "model.pth", "w", compression) as made:
            for record in plain.infolist():
                whole = pickled if record.filename.endswith("data.pkl") else None
                made.writestr(record.filename, whole or plain.read(record))

    return write


def behind(pickled):
    """A bare pickle, which torch would read, with a harmless zip file behind it."""

    def write(folder):
        (folder / "model.pth").write_bytes(pickled + (folder / "model.pth").read_bytes())

    return write


def overlapping(folder):
    """A zip file that names the same stored megabyte a thousand times."""
    with zipfile.ZipFile(folder / "model.pth", "w") as made:
        made.writestr("archive/data.pkl", pickle.dumps({}, protocol=2))
        made.writestr("archive/data/0", bytes(MEGABYTE))
        one = made.filelist[-1]
        for i in range(1, 1000):
            other = zipfile.ZipInfo(f"archive/data/{i}")
            other.file_size, other.compress_size = one.file_size, one.compress_size
            other.CRC, other.header_offset = one.CRC, one.header_offset
            made.filelist.append(other)


def nowhere(name):
    def write(folder):
        (folder / name).unlink()
        (folder / name).symlink_to(folder / "nowhere")

    return write


def replaces(said):
    return {"type": "Replace", "pattern": {"String": "a"}, "content": said}


KEYS = b"\x80\x02})" + b"\x85" * 10**6 + b"Ns."
BYTES = b"\x80\x02}X\x01\x00\x00\x00ac__builtin__\nbytearray\nJ\xff\xff\xff\x7f\x85Rs."
BPE = {"type": "BPE", "vocab": {"<|endoftext|>": 0, "a": 1}, "merges": [["a", "b"]]}
CATASTROPHE = {"type": "Split", "pattern": {"Regex": "(a+)+$"}, "behavior": "Isolated",
               "invert": False}  # fmt: skip
PTH = "model.pth is no checkpoint of plain tensors, and nothing in it was run"
SAFE = "model.safetensors is not a whole safetensors file"

LOADED = [
    (with_config(n_layers=10**9), "2 layers are in the checkpoint, but n_layers=1000000000"),
    (with_config(d_model=10**9), "[262, 6] in the checkpoint, but [262, 1000000000] by the config"),
    (with_config(d_vocab=10**12), "embed.W_E is [262, 6] in the checkpoint, but [1000000000000"),
    (with_config(n_ctx=10**12), "pos_embed.W_pos is [8, 6] in the checkpoint, but [1000000000000"),
    (with_config(n_heads=10**9), "blocks.0.attn.W_Q is [2, 6, 3] in the checkpoint, but [10000000"),
    (with_config(d_head=10**9), "blocks.0.attn.W_Q is [2, 6, 3] in the checkpoint, but [2, 6, 100"),
    (with_config(d_mlp=10**9), "blocks.0.mlp.W_in is [6, 4] in the checkpoint, but [6, 100000000"),
    (with_config(n_ctx=10**9, positional_embedding_type="sinusoidal"),
     "n_ctx=1000000000 sinusoidal positions of 6 dims are more numbers than all the"),
    (with_config(eps=math.nan), "config.json: eps must be a number > 0, got nan"),
    (file("config.json", b'{"n_layers":' * 10**5), "config.json has 1,200,000 bytes, more than"),
    (file("config.json", b"[" * 10**6), "config.json: maximum recursion depth"),
    (file("config.json", b'{"n_layers": ' + b"9" * 10**5 + b"}"), "config.json: Exceeds the limit"),
    (file("config.json", b"[1, 2]"), "config.json: "),
    (file("config.json", b"\xff\xfe"), "config.json is no text in UTF-8"),
    (file("model.safetensors", b""), SAFE),
    (file("model.safetensors", struct.pack("<Q", 2) + b"[]"), SAFE),
    (file("model.safetensors", struct.pack("<Q", 10**6) + b"[" * 10**6), SAFE),
    (with_header(lambda h: h["embed.W_E"].update(data_offsets=[-4, 4])), SAFE),
    (with_header(lambda h: h["embed.W_E"].update(data_offsets=h["unembed.W_U"]["data_offsets"])),
     SAFE),
    (with_header(lambda h: h["embed.W_E"].update(shape=[2**62, 2**62, 0])), SAFE),
    (with_header(lambda h: h["embed.W_E"].update(dtype="F7")), SAFE),
    (with_header(lambda h: h["embed.W_E"].update(dtype="I32")), "in the checkpoint is torch.int32"),
    (with_header(lambda h: h["embed.W_E"].update(shape=[6, 262])), "embed.W_E is [6, 262] in the"),
    (with_header(twice), SAFE),
    (far_weights, "embed.W_E in the checkpoint holds a number that is not finite"),
    (nowhere("config.json"), "a folder must hold config.json and model.safetensors"),
    (nowhere("model.safetensors"), "model.safetensors is missing"),
    (nowhere("tokenizer.json"), "tokenizer.json"),
    (file("tokenizer.json", b"[" * 10**6), "tokenizer.json is no tokenizer: maximum recursion"),
    (file("tokenizer.json", b'{"normalizer":' * 500 + b"0" + b"}" * 500), "is no tokenizer: "),
    (file("tokenizer.json", b"[]"), "tokenizer.json is no tokenizer: "),
    (with_tokenizer(model=BPE), "tokenizer.json is no tokenizer: Token `b` out of vocabulary"),
    (with_tokenizer(normalizer={"type": "Sequence", "normalizers": [replaces("aa")] * 40}),
     "tokenizer.json is no tokenizer: its normalizer makes a text 1e+12 times as long"),
    (with_tokenizer(decoder=replaces("a" * 1000)), "its decoder makes a text 1e+03 times as long"),
    (with_tokenizer(normalizer={"type": "Precompiled", "precompiled_charsmap": "/////w=="}),
     "its normalizer makes a text inf times as long"),
    (with_tokenizer(padding={"strategy": {"Fixed": 10**9}, "direction": "Right", "pad_id": 0,
                             "pad_to_multiple_of": None, "pad_type_id": 0, "pad_token": "a"},
                    truncation={"max_length": 2, "stride": 5, "strategy": "LongestFirst",
                                "direction": "Right"}), "[[0, 65, 65, 65, 65, "),
    (with_tokenizer(pre_tokenizer=CATASTROPHE), "retry-limit-in-match over"),
]  # fmt: skip
FROM_PTH = [
    *((zipped(pickle.dumps({"embed.W_E": Armed()}, protocol=p)), PTH) for p in range(6)),
    *((file("model.pth", pickle.dumps({"embed.W_E": Armed()}, protocol=p)), PTH) for p in range(6)),
    (behind(pickle.dumps(Armed(), protocol=2)), "it does not begin as a zip file"),
    (behind(KEYS), "it does not begin as a zip file"), (file("model.pth", KEYS), PTH),
    (zipped(KEYS), "there are more than 20,000 tuples in it"),
    (zipped(BYTES), "__builtin__ bytearray is nothing that puts tensors together"),
    (zipped(None, zipfile.ZIP_DEFLATED), "and torch.save packs none"),
    (overlapping, "bytes are packed into"),
    (file("model.pth", b"PK\x03\x04" + bytes(500)), PTH),
]  # fmt: skip


def refusal_of(door, write):
    """The error of a door on a spoilt folder, or the tokens of a text; and the megabytes it
    took."""
    with tempfile.TemporaryDirectory() as made:
        folder = Path(shutil.copytree(saved(), made, dirs_exist_ok=True))
        write(folder)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        try:
            said = str(door(folder).to_tokens("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa!").tolist())
        except REFUSED as error:
            said = str(error)
        except BaseException as error:  # tokenizers panics, outside of Exception
            said = f"{type(error).__name__}: {error}"
        return said, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024


@pytest.fixture(scope="module", autouse=True)
def little_memory():
    """A bomb ends the process, not the machine. Only in the second pytest: the limit stays."""
    if "CIRCUITS_LITTLE_MEMORY" in os.environ:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        most = pages * resource.getpagesize() + 700 * MEGABYTE
        resource.setrlimit(resource.RLIMIT_AS, (most, most))


@pytest.mark.parametrize(("write", "message"), LOADED, ids=[row[-1][:50] for row in LOADED])
def test_a_hostile_folder_is_refused_in_words_and_costs_little(write, message):
    said, megabytes = refusal_of(load, write)
    assert message in said and len(said) < 5000
    assert megabytes < 100


@pytest.mark.parametrize(("write", "message"), FROM_PTH, ids=[row[-1][:50] for row in FROM_PTH])
def test_a_hostile_pickle_is_refused_in_words_and_costs_little(write, message):
    said, megabytes = refusal_of(lambda folder: from_state_dict(CFG, folder / "model.pth"), write)
    assert message in said and len(said) < 5000
    assert megabytes < 100
