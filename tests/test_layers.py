"""The layers: a module imports only its own layer or a lower one, and the pure layers stay light.

Every import counts, wherever it stands: inside a function, and under ``TYPE_CHECKING`` too, because a module that names a
type from above knows what is above it. What an upper layer needs to hand down is declared below (a Protocol, a dataclass).
"""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Final, NamedTuple

import pytest

ROOT: Final = Path(__file__).resolve().parent.parent
FACE: Final = "workbench"
"""The package itself, which offers names of all layers; nothing inside may import it, but for its version."""

LAYERS: Final = {
    0: (
        "errors",
        "params",
        "prompts",
        "records",
        "yamlmarks",
    ),
    1: (
        "adapters",
        "plan",
        "problems",
        "registry",
        "searchspace",
        "study",
        "studycheck",
        "studyfields",
        "wording",
    ),
    2: ("engines",),
    3: (
        "canary",
        "committer",
        "fingerprint",
        "latency",
        "machine",
        "progress",
        "provenance",
        "rundir",
        "runner",
        "store",
        "tables",
    ),
    4: ("scorers",),
    5: (
        "adapternotes",
        "analysis",
        "answers",
        "breakdown",
        "comparing",
        "effects",
        "factors",
        "health",
        "interchange",
        "judges",
        "judging",
        "labels",
        "measures",
        "plots",
        "resample",
        "rescoring",
        "sequential",
        "settling",
        "stats",
        "words",
    ),
    6: (
        "api",
        "cli",
        "deciding",
        "demo",
        "doctor",
        "exploring",
        "quantizing",
        "reporting",
        "reproducing",
        "runs",
        "serve",
        "terminal",
        "training",
        "tuning",
    ),
    7: (),
}
"""What lives in which layer; a package stands for all its modules."""

PURE: Final = (0, 1, 4)
HEAVY: Final = frozenset(
    {"torch", "transformers", "peft", "pandas", "matplotlib", "scipy", "pyarrow"}
)


class Imported(NamedTuple):
    """One import: the module it names and the line it is on."""

    module: str
    line: int


def layer_of(module: str) -> int | None:
    """The layer of a dotted module, or None if the table does not know it."""
    if module == FACE:
        return max(LAYERS)
    part = module.split(".")[1]
    return next((layer for layer, names in LAYERS.items() if part in names), None)


def module_name(path: Path, root: Path) -> str:
    """Dotted name of a source file."""
    parts = path.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(source: str, module: str, modules: set[str], *, package: bool) -> list[Imported]:
    """All imports of a source text, relative ones resolved, ``from package import submodule`` as the submodule."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [Imported(alias.name, node.lineno) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = (
                module.split(".")[: len(module.split(".")) - node.level + package]
                if node.level
                else []
            )
            origin = ".".join([*above, *([node.module] if node.module else [])])
            for alias in node.names:
                if origin == FACE and alias.name == "__version__":
                    continue
                name = f"{origin}.{alias.name}"
                found.append(Imported(name if name in modules else origin, node.lineno))
        elif (
            isinstance(node, ast.Call)
            and getattr(node.func, "attr", getattr(node.func, "id", "")) == "import_module"
        ):
            text = node.args[0] if node.args else None
            if isinstance(text, ast.Constant) and isinstance(text.value, str):
                found.append(Imported(text.value, node.lineno))
    return found


def problems(package: Path) -> list[str]:
    """Every breach of the layers in a package directory named ``workbench``."""
    files = {module_name(path, package.parent): path for path in sorted(package.rglob("*.py"))}
    said = []
    for module, path in files.items():
        where = path.relative_to(package.parent)
        layer = layer_of(module)
        if layer is None:
            said.append(f"{where}: not in the table of layers (LAYERS in tests/test_layers.py)")
            continue
        source = path.read_text(encoding="utf-8")
        for name, line in imports(source, module, set(files), package=path.name == "__init__.py"):
            top = name.split(".")[0]
            if layer in PURE and top in HEAVY:
                said.append(f"{where}:{line}: layer {layer} imports {top}; it must stay free of it")
            if top != FACE:
                continue
            other = layer_of(name)
            if other is None:
                said.append(f"{where}:{line}: imports {name}, which is in no layer")
            elif other > layer:
                said.append(f"{where}:{line}: layer {layer} imports {name}, layer {other}")
    return list(dict.fromkeys(said))


def test_imports_go_down():
    """No module imports from a layer above its own, and every module has a layer."""
    found = problems(ROOT / "workbench")
    assert not found, "\n".join(found)


def test_no_module_is_in_two_layers():
    """A module's place is unambiguous."""
    names = [name for names in LAYERS.values() for name in names]
    assert len(names) == len(set(names))


@pytest.mark.parametrize(
    ("file", "text", "said"),
    [
        (
            "params.py",
            "import workbench.store\n",
            "workbench/params.py:1: layer 0 imports workbench.store, layer 3",
        ),
        (
            "engines/base.py",
            "def f():\n    from workbench import runner\n",
            "workbench/engines/base.py:2: layer 2 imports workbench.runner, layer 3",
        ),
        (
            "engines/base.py",
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from ..runner import run\n",
            "workbench/engines/base.py:3: layer 2 imports workbench.runner, layer 3",
        ),
        (
            "engines/__init__.py",
            "from ..runner import run\n",
            "workbench/engines/__init__.py:1: layer 2 imports workbench.runner, layer 3",
        ),
        (
            "params.py",
            "import importlib\nimportlib.import_module('workbench.store')\n",
            "workbench/params.py:2: layer 0 imports workbench.store, layer 3",
        ),
        (
            "runner.py",
            "from workbench import Study\n",
            "workbench/runner.py:1: layer 3 imports workbench, layer 7",
        ),
        (
            "runner.py",
            "from workbench.nowhere import x\n",
            "workbench/runner.py:1: imports workbench.nowhere, which is in no layer",
        ),
        (
            "strange.py",
            "",
            "workbench/strange.py: not in the table of layers (LAYERS in tests/test_layers.py)",
        ),
        (
            "params.py",
            "import scipy.stats\n",
            "workbench/params.py:1: layer 0 imports scipy; it must stay free of it",
        ),
    ],
)
def test_the_check_can_fail(tmp_path, file, text, said):
    """Each kind of breach, planted in a small package, is found and named with its line."""
    package = tmp_path / "workbench"
    (package / "engines").mkdir(parents=True)
    for name in (
        "__init__.py",
        "params.py",
        "runner.py",
        "store.py",
        "engines/__init__.py",
        "engines/base.py",
    ):
        (package / name).write_text("", encoding="utf-8")
    assert problems(package) == []
    (package / file).write_text(text, encoding="utf-8")
    assert problems(package) == [said]


def test_allowed_imports_pass(tmp_path):
    """Imports downward, within a layer, of the version and of other packages are no breach."""
    package = tmp_path / "workbench"
    package.mkdir()
    (package / "params.py").write_text(
        "import json\nfrom workbench import __version__\n", encoding="utf-8"
    )
    text = "import pandas\nfrom workbench import params, store\nfrom .store import RunStore\n"
    (package / "runner.py").write_text(text, encoding="utf-8")
    (package / "store.py").write_text("", encoding="utf-8")
    (package / "__init__.py").write_text("from workbench.runner import run\n", encoding="utf-8")
    assert problems(package) == []
