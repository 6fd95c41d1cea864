"""`circuits train`, killed at random moments: does every run end with the bytes of a whole one?

    python -m tests.benchmarks.kill_runs [--kills 30] [--each 3] [--megabytes 4] [--seed 0]

Each folder is killed (SIGKILL) so many times, while it tokenises, trains or finishes, each time
after a random while; then the same command is let run to its end. Where `unshare` may be used every
start is the first process of a namespace of its own, as in a container: all have the same process
id. Prints a line for each kill and each folder; status 1 if one did not end in equal bytes.
"""

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

STEPS = 40
OPTIONS = ["--layers", "1", "--heads", "2", "--d-head", "8", "--context", "32",
           "--vocab", "300", "--batch-size", "4", "--steps", str(STEPS), "--every", "7",
           "--examples", "4"]  # fmt: skip
FILES = ("model.safetensors", "config.json", "tokenizer.json", "recipe.json", "run.json",
         "history.npz")  # fmt: skip
PHASES = {
    "starting": ((".running",), 1.0),
    "tokenising": ((".tokens/.part-*", "snapshots/step-*"), 0.5),
    "training": (("snapshots/step-*.safetensors",), 3.0),
    "finishing": ((f"snapshots/step-*{STEPS}.safetensors",), 0.3),
    "tidying": (("history.npz",), 0.05),
}
"What is in the folder when a phase begins, and how many seconds at most it is left to go on."


def main() -> None:
    """Kill runs, print what became of them."""
    parser = argparse.ArgumentParser()
    for name, usual in (("kills", 30), ("each", 3), ("megabytes", 4), ("seed", 0)):
        parser.add_argument(f"--{name}", type=int, default=usual)
    said = parser.parse_args()
    rng = random.Random(said.seed)
    with tempfile.TemporaryDirectory() as place:
        text = _written(Path(place) / "text.txt", said.megabytes, rng)
        whole = Path(place) / "whole"
        _finished(whole, text)
        wrong = done = 0
        while done < said.kills:
            out = Path(place) / f"run-{done}"
            phases = rng.choices(list(PHASES), k=min(said.each, said.kills - done))
            for phase in sorted(phases, key=list(PHASES).index):
                done += 1
                print(f"kill {done:3}: {_killed(out, text, phase, rng)}", flush=True)
            words = _finished(out, text) or _compared(out, whole)
            wrong += bool(words)
            print(f"          {out.name}: {words or 'equal bytes'}", flush=True)
            shutil.rmtree(out, ignore_errors=True)
    print(f"{done} kills, {wrong} runs that did not end in equal bytes")
    raise SystemExit(bool(wrong))


def _written(file: Path, megabytes: int, rng: random.Random) -> Path:
    words = ["".join(rng.choices("abcdefghij", k=rng.randint(2, 8))) for _ in range(2000)]
    documents = (" ".join(rng.choices(words, k=2000)) for _ in range(megabytes * 80))
    file.write_text("\n<|endoftext|>\n".join(documents))
    return file


def _started(out: Path, text: Path) -> subprocess.Popen:
    alone = ["unshare", "--pid", "--fork", "--kill-child"]
    if (
        not shutil.which("unshare")
        or subprocess.run([*alone, "true"], capture_output=True).returncode
    ):
        alone = []
    command = [sys.executable, "-m", "analyses.cli", "train", "--data", text, "--out", out]
    return subprocess.Popen(
        [*map(str, [*alone, *command]), *OPTIONS], stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )


def _killed(out: Path, text: Path, phase: str, rng: random.Random) -> str:
    """Start a run, kill it at a random moment of a phase, and say when it was."""
    signs, longest = PHASES[phase]
    running = _started(out, text)
    while running.poll() is None and not any(list(out.glob(sign)) for sign in signs):
        time.sleep(0.002)
    time.sleep(rng.uniform(0, longest))
    ended = running.poll() is not None
    if not ended:
        os.kill(running.pid, signal.SIGKILL)
    running.communicate()  # until all that held its output are gone
    there = sorted(path.stem for path in (out / "snapshots").glob("step-*.safetensors"))
    left = [path.name[:12] for path in out.rglob(".part-*")]
    last = there[-1] if there else "no snapshot"
    return f"{phase:10} {last:15} {'it had ended' if ended else 'killed'}; left {left}"


def _finished(out: Path, text: Path) -> str:
    """Let a run go to its end; what it said if it did not get there."""
    running = _started(out, text)
    said, _ = running.communicate()
    ours = b"already holds a model" in said and (out / "model.safetensors").is_file()
    return "" if running.returncode == 0 or ours else said.decode(errors="replace")


def _compared(out: Path, whole: Path) -> str:
    """What is not as in the whole run."""
    other = [name for name in FILES if (out / name).read_bytes() != (whole / name).read_bytes()]
    if _log(out) != _log(whole):
        other.append("log.jsonl")
    names = {path.name for path in out.iterdir()} ^ {path.name for path in whole.iterdir()}
    return f"{other} differ, {sorted(names)} are not in both" if other or names else ""


def _log(folder: Path) -> list[dict[str, float]]:
    records = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [{k: v for k, v in record.items() if k != "seconds"} for record in records]


if __name__ == "__main__":
    main()
