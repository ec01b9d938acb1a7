"""The shape of the code: who may import whom, how large things may grow, what is never done."""

from __future__ import annotations

import ast
import functools
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "src" / "ayatori"
SOURCES = sorted(PACKAGE.rglob("*.py"))
TREES = {path: ast.parse(path.read_text(encoding="utf-8")) for path in SOURCES}

# Each part imports only from its own layer and the ones before it; `__init__` lists the public names lazily.
LAYERS: tuple[tuple[str, ...], ...] = (
    ("errors", "clock", "sheets", "processes"),
    ("packed",),
    ("aside", "shards"),
    ("aside", "archives"),
    ("records", "recipe"),
    ("data", "plan", "nets", "augment", "evaluate", "ensemble"),
    ("train",),
    ("embed",),
    ("pretrained", "explore", "advise"),
    ("store", "model", "model_files", "outputs", "assemble", "decide", "distil", "sentences", "learned"),
    ("prepare", "export"),
    ("run",),
    ("estimators", "estimator_input", "show", "options", "look_options", "log"),
    ("report", "serve"),
    ("__init__",),
    ("cli", "__main__"),
)
RANK = {part: rank for rank, layer in enumerate(LAYERS) for part in layer}
NO_TORCH = (
    "errors",
    "archives",
    "shards",
    "packed",
    "processes",
    "aside",
    "records",
    "recipe",
    "data",
    "plan",
    "evaluate",
    "ensemble",
)


def module_of(path: Path) -> str:
    """``ayatori.nets.mlp`` for .../ayatori/nets/mlp.py; a package is named by its folder."""
    return ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")


MODULES = {module_of(path): path for path in SOURCES}


def part_of(module: str) -> str:
    """The part of the flow that a module belongs to: ``nets`` for ``ayatori.nets.mlp``."""
    return module.split(".")[1] if "." in module else "__init__"


def is_for_types_only(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)


@functools.cache
def imports_of(path: Path, inside_functions: bool = True) -> set[str]:
    """Full names of all modules that a file imports; those under TYPE_CHECKING never run and do not count."""
    found: set[str] = set()
    package = module_of(path) if path.name == "__init__.py" else module_of(path).rpartition(".")[0]

    def visit(node: ast.AST) -> None:
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: package.count(".") + 2 - node.level] if node.level else []
            name = ".".join([*above, *([node.module] if node.module else [])])
            found.update(f"{name}.{alias.name}" for alias in node.names if f"{name}.{alias.name}" in MODULES)
            found.update([name] if any(f"{name}.{alias.name}" not in MODULES for alias in node.names) else [])
        for child in ast.iter_child_nodes(node):
            function = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef)
            if not is_for_types_only(child) and (inside_functions or not function):
                visit(child)

    visit(TREES[path])
    return found


def own_imports(path: Path, inside_functions: bool = True) -> set[str]:
    return {name for name in imports_of(path, inside_functions) if name.split(".")[0] == "ayatori"}


def only_result_report(path: Path, target: str) -> bool:
    """``Result.report`` draws the page, so run.py names the report inside that function and nowhere else."""
    return path.name == "run.py" and part_of(target) == "report" and target not in own_imports(path, False)


def test_every_module_has_its_place_in_the_layers() -> None:
    parts = {part_of(module) for module in MODULES}
    assert parts <= set(RANK), "a new part of the package must be placed in LAYERS, and in DESIGN's order"


@pytest.mark.parametrize("path", SOURCES, ids=module_of)
def test_imports_run_one_way(path: Path) -> None:
    rank = RANK[part_of(module_of(path))]
    against = {
        name
        for name in own_imports(path)
        if RANK.get(part_of(name), len(LAYERS)) > rank and not only_result_report(path, name)
    }
    assert not against, f"{module_of(path)} must not import what comes after it: {sorted(against)}"


def test_nobody_but_the_commands_and_result_report_imports_the_report() -> None:
    users = {
        module_of(path)
        for path in SOURCES
        for name in own_imports(path)
        if part_of(name) == "report" and not only_result_report(path, name)
    }
    assert {part_of(user) for user in users} <= {"report", "cli"}


def test_no_module_imports_itself_in_a_circle() -> None:
    graph = {module: own_imports(path) & set(MODULES) - {module} for module, path in MODULES.items()}
    graph["ayatori.run"] = {name for name in graph.get("ayatori.run", ()) if part_of(name) != "report"}
    while graph:
        leaves = {module for module, needs in graph.items() if not needs & set(graph)}
        assert leaves, f"import cycle among {sorted(graph)}"
        graph = {module: needs for module, needs in graph.items() if module not in leaves}


@pytest.mark.parametrize("part", NO_TORCH)
def test_these_parts_import_no_torch_even_through_others(part: str) -> None:
    todo, seen = [name for name in MODULES if part_of(name) == part], set()
    while todo:
        module = todo.pop()
        seen.add(module)
        foreign = {name.split(".")[0] for name in imports_of(MODULES[module])}
        assert "torch" not in foreign, f"{part} reaches torch by {module}"
        todo += [name for name in own_imports(MODULES[module]) if name in MODULES and name not in seen]


@pytest.mark.parametrize("path", SOURCES, ids=module_of)
def test_files_and_functions_are_small_enough_to_read(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 500
    functions = [n for n in ast.walk(TREES[path]) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)]
    # from the docstring on: a command's signature is its list of options, one a line
    lengths = {
        function.name: (function.end_lineno or 0) - function.body[0].lineno + 1 for function in functions
    }
    assert not {name: length for name, length in lengths.items() if length > 60}


def test_no_function_is_too_complex() -> None:
    limit = "lint.mccabe.max-complexity=12"
    command = ["ruff", "check", "--isolated", "--ignore-noqa", "--select=C901", "--config", limit, PACKAGE]
    checked = subprocess.run([sys.executable, "-m", *map(str, command)], capture_output=True, text=True)
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_own_classes_inherit_from_own_classes_at_most_once() -> None:
    classes = [node for tree in TREES.values() for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
    bases = {
        node.name: [ast.unparse(base).split("[")[0].split(".")[-1] for base in node.bases] for node in classes
    }

    def depth(name: str) -> int:
        return 1 + max((depth(base) for base in bases[name] if base in bases and base != name), default=0)

    assert not {name: depth(name) for name in bases if depth(name) > 2}


def calls_of(path: Path) -> list[tuple[str, dict[str, str]]]:
    """(dotted name, keyword arguments as text) of every call in a file."""
    calls = [node for node in ast.walk(TREES[path]) if isinstance(node, ast.Call)]
    return [
        (ast.unparse(call.func), {key.arg or "**": ast.unparse(key.value) for key in call.keywords})
        for call in calls
    ]


@pytest.mark.parametrize("path", SOURCES, ids=module_of)
def test_no_pickle_is_read_or_written(path: Path) -> None:
    pickling = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
    assert not {name.split(".")[0] for name in imports_of(path)} & pickling
    for name, arguments in calls_of(path):
        assert not re.search(r"\b(read_pickle|to_pickle|(?<!safetensors\.)torch\.save|jit\.load)$", name), (
            name
        )
        if re.search(r"(?<!safetensors\.)\btorch\.load$", name):
            assert arguments.get("weights_only") == "True", name
        assert arguments.get("allow_pickle", "False") == "False", name
        assert "**" not in arguments or not re.search(r"\b(np|numpy|torch)\.(load|save)\w*$", name), name


def test_there_is_one_training_loop() -> None:
    loops = {module_of(path) for path in SOURCES for name, _ in calls_of(path) if name.endswith(".backward")}
    assert {part_of(module) for module in loops} <= {"train"}
    assert len(loops) <= 1


def test_the_readme_lists_every_file_of_the_package_once() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    listed = re.findall(r"^\| `([\w./]+\.\w+)` +\|", text, flags=re.MULTILINE)
    files = [path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*") if path.is_file()]
    files = [name for name in files if "__pycache__" not in name and not name.endswith(".pyc")]
    assert sorted(listed) == sorted(files)


def test_the_lock_satisfies_every_dependency_and_names_no_address() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    runtime = project["project"]["dependencies"] + project["build-system"]["requires"]
    tests = [need for group in project["dependency-groups"].values() for need in group]
    folder = ROOT / "requirements"
    lines = {file: (folder / file).read_text(encoding="utf-8") for file in ("lock.txt", "test.txt")}
    assert not re.search(r"https?:|file:|--|[\w.]+/", "".join(lines.values()).replace("dev/lock.py", ""))
    pins = {
        file: dict(re.findall(r"^([\w.-]+)==([^\s;]+)", text, re.MULTILINE)) for file, text in lines.items()
    }
    both = {**pins["lock.txt"], **pins["test.txt"]}
    for need, known in [(need, pins["lock.txt"]) for need in runtime] + [(need, both) for need in tests]:
        wanted = Requirement(need)
        version = known.get(canonicalize_name(wanted.name))
        assert version is not None, f"{need} is not in the lock: make lock"
        assert wanted.specifier.contains(version), f"{need}, however the lock has {version}: make lock"


def in_fresh_python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


HEAVY = "{'torch', 'pandas', 'sklearn', 'scipy', 'pyarrow', 'torchvision'}"


def test_importing_ayatori_loads_nothing_heavy_and_takes_little_time() -> None:
    code = f"""
import sys, time
start = time.process_time()
import ayatori
spent = time.process_time() - start
assert not {HEAVY} & set(sys.modules), {HEAVY} & set(sys.modules)
print(spent)
"""
    # CPU time, and the best of three: a busy machine must not decide
    assert min(float(in_fresh_python(code)) for _ in range(3)) < 0.2


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["--help"], 0),
        (["run", "--help"], 0),
        (["run", "nowhere.csv"], 2),
        (["predict", "nowhere", "x.csv"], 2),
    ],
    ids=str,
)
def test_help_and_a_path_that_is_not_there_load_nothing_heavy(arguments: list[str], code: int) -> None:
    said = in_fresh_python(f"""
import sys
sys.argv = ["ayatori", *{arguments!r}]
from ayatori.cli import main
try:
    main()
    stopped = 0
except SystemExit as stop:
    stopped = stop.code or 0
assert stopped == {code}, stopped
assert not {HEAVY} & set(sys.modules), {HEAVY} & set(sys.modules)
""")
    assert bool(said.strip()) == (code == 0)


def test_every_public_name_can_be_reached() -> None:
    missing = in_fresh_python(
        "import ayatori; print([n for n in ayatori.__all__ if not hasattr(ayatori, n)])"
    )
    assert missing.strip() == "[]"
