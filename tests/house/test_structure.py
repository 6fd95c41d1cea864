"""The house keeps its walls: imports go one way, nothing reaches out, and every door has a sign."""

import ast
import importlib
import inspect
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.house.floors import FLOORS

ROOT = Path(__file__).parent.parent.parent
MODULES = [
    path
    for package in ("circuits", "analyses")
    for path in sorted((ROOT / package).rglob("*.py"))
    if path.name != "__init__.py"
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


def upward(root: Path, floors: dict[str, list[str]]) -> list[str]:
    """Imports that go up: from one child of a folder to a child that stands above it."""
    found = []
    for package in {folder.partition("/")[0] for folder in floors}:
        for path in sorted((root / package).rglob("*.py")):
            if path.name == "__init__.py":
                continue
            here = path.relative_to(root).with_suffix("").parts
            for name in imports(path):
                there = tuple(name.split("."))
                same = next(
                    (i for i, (a, b) in enumerate(zip(here, there, strict=False)) if a != b), None
                )
                order = floors.get("/".join(here[:same]), []) if same else []
                if (
                    same
                    and there[same] in order
                    and order.index(there[same]) > order.index(here[same])
                ):
                    found.append(f"{'/'.join(here)} imports {name}")
    return found


def children(folder: Path) -> set[str]:
    files = {path.stem for path in folder.glob("*.py")} - {"__init__"}
    return files | {path.parent.name for path in folder.glob("*/__init__.py")}


def test_the_plan_names_what_is_there_and_nothing_else():
    folders = {str(path.parent.relative_to(ROOT)) for package in ("circuits", "analyses")
               for path in (ROOT / package).rglob("__init__.py")}  # fmt: skip
    assert folders == set(FLOORS)
    wrong = {folder: children(ROOT / folder) ^ set(order) for folder, order in FLOORS.items()}
    assert not {folder: names for folder, names in wrong.items() if names}


def test_no_import_goes_up():
    assert upward(ROOT, FLOORS) == []


def test_an_import_that_goes_up_is_seen_between_folders_and_inside_of_one(tmp_path):
    for file, text in {
        "house/low/one.py": "from house.low import two\nfrom house.high.four import x",
        "house/low/two.py": "",
        "house/high/three.py": "from house.low.one import y",
        "house/high/four.py": "import house.high.three",
    }.items():
        path = tmp_path / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    floors = {
        "house": ["low", "high"],
        "house/low": ["one", "two"],
        "house/high": ["three", "four"],
    }
    assert set(upward(tmp_path, floors)) == {
        "house/low/one imports house.low.two",
        "house/low/one imports house.high.four",
        "house/low/one imports house.high.four.x",
    }


def test_circuits_never_imports_analyses():
    found = [path for path in MODULES if path.is_relative_to(ROOT / "circuits")
             and any(name.split(".")[0] == "analyses" for name in imports(path))]  # fmt: skip
    assert found == []


@pytest.mark.parametrize("package", ["circuits", "analyses"])
def test_importing_a_package_draws_and_reaches_for_nothing(package):
    script = f"import sys, {package}; print(' '.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    for heavy in ("transformer_lens", "matplotlib", "xarray", "pandas", "transformers", "datasets"):
        assert heavy not in done.stdout.split(), f"import {package} imports {heavy}"


def test_circuits_never_imports_matplotlib_and_nobody_the_network():
    found = []
    for path in MODULES:
        names = {name.split(".")[0] for name in imports(path)}
        wrong = names & {"requests", "urllib", "socket", "http", "wandb"}
        if path.is_relative_to(ROOT / "circuits"):
            door = DOORS.get(path.stem, set())
            wrong |= names & ({"matplotlib", "xarray", "transformer_lens", "transformers"} - door)
        found += [f"{path.relative_to(ROOT)} imports {name}" for name in wrong]
    assert found == []


DOORS = {"bridge": {"transformer_lens", "transformers"}, "hugging_face": {"transformers"}}
"What only these modules of circuits import."


@pytest.mark.parametrize("door", DOORS)
def test_a_door_imports_what_is_behind_it_and_only_inside_functions(door):
    tree = ast.parse((ROOT / "circuits" / "io" / f"{door}.py").read_text())
    outside = [node for node in tree.body if not isinstance(node, ast.FunctionDef)]
    reached = {name.split(".")[0] for name in imports_in(ast.Module(outside, []))}
    assert not reached & {"transformer_lens", "transformers", "huggingface_hub"}
    assert DOORS[door] <= {n.split(".")[0] for n in imports_in(tree)}


def test_one_place_of_analyses_makes_arrays_of_tensors():
    """Half precision is raised there: numpy has no bfloat16, and rounding would be float16's."""
    found = [f"{path.relative_to(ROOT)}:{node.lineno}: write labelled.to_numpy(tensor)"
             for path in MODULES if path.is_relative_to(ROOT / "analyses")
             for node in ast.walk(ast.parse(path.read_text()))
             if isinstance(node, ast.Attribute) and node.attr == "numpy"]  # fmt: skip
    assert [place for place in found if "labelled.py" not in place] == [] and len(found) == 1


def calls(path: Path) -> Iterator[tuple[ast.Call, str]]:
    """The calls of methods in a file, and the names of the methods."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            yield node, node.func.attr


def test_our_own_runs_attach_hooks_for_themselves_alone():
    """`hooks` and `add_hook` are the user's: every thread hears them."""
    listening = {ROOT / "circuits/hooks" / file for file in ("points.py", "hooked.py")}
    listening.add(ROOT / "circuits/hooked_transformer/hooking.py")
    found = [f"{path.relative_to(ROOT)}:{call.lineno} {name}"
             for path in MODULES if path not in listening for call, name in calls(path)
             if name in ("hooks", "add_hook", "register_forward_hook")]  # fmt: skip
    assert found == []


WRITES = {"write_text", "write_bytes", "savefig", "save_file", "savez_compressed", "rmtree"}
WRITERS = {"circuits/files.py", "circuits/data/shards.py", "analyses/papers/report/folder.py",
           "analyses/papers/report/entries.py"}  # fmt: skip
"Where these are called outside of `with replacing(...)`: in a folder that is not yet in its place."


def test_files_are_written_in_one_place_and_no_folder_is_removed_by_its_name():
    found = []
    for path in MODULES:
        safe = {inner.lineno for node in ast.walk(ast.parse(path.read_text()))
                if isinstance(node, ast.With) and "replacing(" in ast.unparse(node.items[0])
                for inner in ast.walk(node) if isinstance(inner, ast.Call)}  # fmt: skip
        name = path.relative_to(ROOT).as_posix()
        found += [f"{name}:{call.lineno} {what}" for call, what in calls(path)
                  if what == "getpid" or (what in WRITES and call.lineno not in safe
                  and name not in WRITERS)]  # fmt: skip
    assert found == []


def test_every_public_function_is_documented_and_typed_with_shapes():
    found = []
    for name, thing in public():
        if not inspect.getdoc(thing):
            found.append(f"{name} has no docstring")
        for function in [thing] if inspect.isfunction(thing) else methods(thing):
            found += [f"{name}: {what}" for what in untyped(inspect.unwrap(function))]
    assert found == []


def public() -> Iterator[tuple[str, type]]:
    for path in MODULES:
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        if path.stem == "__main__":
            continue
        for thing in vars(importlib.import_module(name)).values():
            if not (inspect.isfunction(thing) or inspect.isclass(thing)):
                continue
            if thing.__module__ == name and not thing.__name__.startswith("_"):
                yield f"{name}.{thing.__name__}", thing


def methods(cls: type) -> Iterator:
    for name, member in vars(cls).items():
        own = inspect.isfunction(member) and member.__module__ == cls.__module__
        if own and not name.startswith("_"):
            yield member


def untyped(function) -> Iterator[str]:
    signature = inspect.signature(function)
    for argument in signature.parameters.values():
        if argument.name in ("self", "cls"):
            continue
        if argument.annotation is inspect.Parameter.empty:
            yield f"{argument.name} has no type"
        elif argument.annotation.__class__.__name__ == "Tensor":
            yield f"{argument.name} has no shape"
    if signature.return_annotation is inspect.Signature.empty:
        yield "what it returns has no type"


def test_faces_name_what_they_have_each_with_a_sentence():
    found = []
    for folder in FLOORS:
        module = importlib.import_module(folder.replace("/", "."))
        text, names = module.__doc__ or "", getattr(module, "__all__", [])
        found += [folder] if not text else []
        if folder.count("/") == 1:
            found += [f"{folder}: {name}" for name in names if f"- {name}: " not in text]
        found += [f"{folder} lacks {name}" for name in names if not hasattr(module, name)
                  and importlib.util.find_spec(f"{module.__name__}.{name}") is None]  # fmt: skip
    assert found == []


def test_files_and_folders_stay_within_their_rooms():
    long = {path: len(path.read_text().splitlines()) for path in MODULES}
    assert [f"{path.relative_to(ROOT)}: {n} lines" for path, n in long.items() if n > 300] == []
    full = {folder: len(list((ROOT / folder).glob("*.py"))) for folder in FLOORS}
    assert [f"{folder}: {n} files" for folder, n in full.items() if n > 15] == []


def test_no_file_names_a_host_of_a_registry_or_a_path_of_a_machine():
    found = []
    for path in ROOT.rglob("*"):
        if path.suffix in (".py", ".md", ".toml", ".json", ".ipynb") and ".git" not in path.parts:
            text = path.read_text()
            if path != Path(__file__) and ("/work/" in text or "/root/" in text):
                found.append(str(path.relative_to(ROOT)))
    assert found == []
