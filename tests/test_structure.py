"""The house keeps its walls: imports go one way, nothing reaches out, and every door has a sign."""

import ast
import importlib
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FLOORS = {
    "circuits": ["config", "components", "cache", "hook_points", "hooks", "tokens", "products",
                 "factored", "weights", "layers", "kv_cache", "attention", "speech", "model",
                 "folding", "files", "weight_files", "checkpoints", "hugging_face", "bridge",
                 "pretrained", "controls", "parts", "stream", "algebra", "composition",
                 "composition_chance", "residual",
                 "frozen", "paths", "scores", "ground_truth", "text", "synthetic", "data", "shards",
                 "recipe",
                 "optimizers", "distributed", "batches", "edits", "interventions", "slopes",
                 "sharded", "snapshots", "loss", "training", "hooked_transformer"],
    "analyses": ["labelled", "losses", "prompts", "passages", "masks", "attention", "patterns",
                 "long_context", "induction", "copying", "detectors",
                 "logit_effects", "skip_trigrams", "composition", "bandwidth", "expansion",
                 "importance", "metrics", "patching", "path_patching", "attribution", "discovery",
                 "ablation", "idealised", "recording", "in_context", "dynamics", "evaluation",
                 "toys", "plots",
                 "tables", "figures", "report", "explorer", "corpus", "run_folder", "runs",
                 "train_command", "measure_commands", "figure_commands", "explore_command", "cli"],
}  # fmt: skip
"A module imports only from modules before it in its package."
MODULES = [
    path
    for package in FLOORS
    for path in sorted((ROOT / package).rglob("*.py"))
    if path.stem != "__init__"
]


def imports(path: Path) -> set[str]:
    return imports_in(ast.parse(path.read_text()))


def imports_in(tree: ast.Module) -> set[str]:
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def test_every_module_has_its_floor():
    for package, floors in FLOORS.items():
        folder = ROOT / package
        there = {path.stem for path in folder.glob("*.py")}
        there |= {path.parent.name for path in folder.glob("*/__init__.py")}
        assert there - {"__init__"} == set(floors), package


@pytest.mark.parametrize("path", MODULES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_a_module_imports_only_from_floors_above(path):
    package = path.relative_to(ROOT).parts[0]
    own = path.relative_to(ROOT / package).parts[0].removesuffix(".py")
    order = FLOORS[package]
    for name in imports(path):
        parts = name.split(".")
        if parts[0] == "analyses":
            assert package == "analyses", f"{path} imports {name}"
        if parts[0] == package and len(parts) > 1 and parts[1] in order and parts[1] != own:
            assert order.index(parts[1]) < order.index(own), f"{path} imports {name}"


@pytest.mark.parametrize("package", FLOORS)
def test_importing_a_package_draws_and_reaches_for_nothing(package):
    script = f"import sys, {package}; print(' '.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    for heavy in ("transformer_lens", "matplotlib", "xarray", "pandas", "transformers", "datasets"):
        assert heavy not in done.stdout.split(), f"import {package} imports {heavy}"


def test_circuits_never_imports_matplotlib_or_the_network():
    for path in MODULES:
        names = {name.split(".")[0] for name in imports(path)}
        assert not names & {"requests", "urllib", "socket", "http", "wandb"}, path
        if path.relative_to(ROOT).parts[0] == "circuits":
            assert not names & {"matplotlib", "xarray"}, path
            allowed = DOORS.get(path.stem, set())
            assert not names & {"transformer_lens", "transformers"} - allowed, path


def test_one_place_of_analyses_makes_arrays_of_tensors():
    """Half precision is raised there: numpy has no bfloat16, and rounding would be float16's."""
    for path in (ROOT / "analyses").rglob("*.py"):
        made = [
            node.lineno for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.Attribute) and node.attr == "numpy"
        ]  # fmt: skip
        allowed = 1 if path == ROOT / "analyses" / "labelled.py" else 0
        assert len(made) <= allowed, f"{path} lines {made}: write labelled.to_numpy(tensor)"


DOORS = {"bridge": {"transformer_lens", "transformers"}, "hugging_face": {"transformers"}}
"What only these modules of circuits import."


@pytest.mark.parametrize("door", DOORS)
def test_a_door_imports_what_is_behind_it_and_only_inside_functions(door):
    tree = ast.parse((ROOT / "circuits" / f"{door}.py").read_text())
    outside = [node for node in tree.body if not isinstance(node, ast.FunctionDef)]
    reached = {name.split(".")[0] for name in imports_in(ast.Module(outside, []))}
    assert not reached & {"transformer_lens", "transformers", "huggingface_hub"}
    assert DOORS[door] <= {n.split(".")[0] for n in imports_in(tree)}


def test_our_own_runs_attach_hooks_for_themselves_alone():
    """`hooks` and `add_hook` are the user's: every thread hears them."""
    for path in MODULES:
        if path.stem in ("hooks", "hooking", "hook_points"):
            continue
        calls = [node for node in ast.walk(ast.parse(path.read_text())) if type(node) is ast.Call]
        called = {call.func.attr for call in calls if isinstance(call.func, ast.Attribute)}
        assert not called & {"hooks", "add_hook", "register_forward_hook"}, path


def public_functions():
    for path in MODULES:
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        module = importlib.import_module(name)
        for thing in vars(module).values():
            if not (inspect.isfunction(thing) or inspect.isclass(thing)):
                continue
            if thing.__module__ == name and not thing.__name__.startswith("_"):
                yield f"{name}.{thing.__name__}", thing


def methods(cls):
    for name, member in vars(cls).items():
        own = inspect.isfunction(member) and member.__module__ == cls.__module__
        if own and not name.startswith("_"):
            yield member


PUBLIC = dict(public_functions())


@pytest.mark.parametrize("name", PUBLIC)
def test_every_public_function_is_documented_and_typed_with_shapes(name):
    thing = PUBLIC[name]
    assert inspect.getdoc(thing), f"{name} has no docstring"
    functions = [thing] if inspect.isfunction(thing) else list(methods(thing))
    for function in functions:
        original = inspect.unwrap(function)
        for argument in inspect.signature(original).parameters.values():
            if argument.name in ("self", "cls"):
                continue
            assert argument.annotation is not inspect.Parameter.empty, f"{name}({argument.name})"
            assert argument.annotation.__class__.__name__ != "Tensor"
        assert inspect.signature(original).return_annotation is not inspect.Signature.empty, name


def test_files_stay_within_their_rooms():
    for path in MODULES:
        lines = len(path.read_text().splitlines())
        assert lines <= 300, f"{path.relative_to(ROOT)} has {lines} lines: split it by meaning"


def test_no_file_names_a_host_of_a_registry_or_a_path_of_a_machine():
    for path in ROOT.rglob("*"):
        if path.suffix in (".py", ".md", ".toml", ".json", ".ipynb") and ".git" not in path.parts:
            text = path.read_text()
            if path != Path(__file__):
                assert "/work/" not in text and "/root/" not in text, path


WRITES = {"write_text", "write_bytes", "savefig", "save_file", "savez_compressed", "rmtree"}
WRITERS = {"circuits/files.py", "circuits/shards.py", "analyses/report/folder.py",
           "analyses/report/entries.py"}  # fmt: skip
"Where these are called outside of `with replacing(...)`: in a folder that is not yet in its place."


def test_files_are_written_in_one_place_and_no_folder_is_removed_by_its_name():
    for path in MODULES:
        tree = ast.parse(path.read_text())
        safe = {id(inner) for node in ast.walk(tree)
                if isinstance(node, ast.With) and "replacing(" in ast.unparse(node.items[0])
                for inner in ast.walk(node)}  # fmt: skip
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                bad = node.func.attr in WRITES and id(node) not in safe
                name = str(path.relative_to(ROOT))
                assert not bad or name in WRITERS, f"{name}:{node.lineno} {node.func.attr}"
                assert node.func.attr != "getpid", name
