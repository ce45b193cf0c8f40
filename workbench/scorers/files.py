"""Scorers in a Python file of the user's: ``my_scorers.py:polite``.

The file is run, like any program of yours: name only files you trust. Its hash is part of the scorer's version, so that an
edited function is another judge.
"""

from __future__ import annotations

import re
import sys
from dataclasses import replace
from hashlib import sha256
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final

from workbench.errors import ScorerError
from workbench.prompts.sources import looked_in, places
from workbench.scorers.base import FAMILIES, FunctionScorer

if TYPE_CHECKING:
    from pathlib import Path

_SPEC: Final = re.compile(r"(?P<file>.+\.py):(?P<name>[A-Za-z_]\w*)")


def file_scorer(spec: str, base_dir: str | Path | None = None) -> FunctionScorer:
    """The scorer that ``FILE.py:NAME`` names.

    Args:
        spec: The file and a function ``(text, prompt) -> float | bool | Score`` in it, with or without ``@scorer``.
        base_dir: A relative file is looked up here first, then in the current directory.

    Raises:
        ScorerError: There is no such file or function, or the file cannot be run.
    """
    found = _SPEC.fullmatch(spec)
    if found is None:
        raise ScorerError(f"a scorer in a file is FILE.py:FUNCTION, got {spec!r}")
    if found["name"] in FAMILIES:
        raise ScorerError(
            f"scorer {spec}: {found['name']!r} ships with the workbench; rename the function"
        )
    path = _place(found["file"], base_dir)
    code = path.read_bytes()
    made = getattr(_run(path, code), found["name"], None)
    if not isinstance(made, FunctionScorer):
        if not callable(made) or isinstance(made, type):
            raise ScorerError(f"scorer {spec}: no function {found['name']!r} in {path}")
        made = FunctionScorer(found["name"], made)
    return replace(made, version=f"{made.version}.{sha256(code).hexdigest()[:8]}")


def _place(name: str, base_dir: str | Path | None) -> Path:
    tried = places(name, base_dir)
    for place in tried:
        if place.is_file():
            return place.resolve()
    raise ScorerError(f"scorer {name}: no such file ({looked_in(tried)})")


def _run(path: Path, code: bytes) -> Any:
    """The file as a module; what it imports from its own folder is found."""
    name = f"workbench_scorers_{sha256(str(path).encode() + code).hexdigest()[:16]}"
    module = ModuleType(name)
    module.__file__ = str(path)
    sys.modules[name] = module  # dataclasses and pickle look there
    sys.path.insert(0, str(path.parent))
    try:
        exec(compile(code, str(path), "exec"), module.__dict__)  # noqa: S102 - the user's own file
    except (Exception, SystemExit) as error:  # whatever is in it
        del sys.modules[name]
        where = f"{type(error).__name__}: {error}"
        raise ScorerError(f"scorer file {path} cannot be run: {where}") from error
    finally:
        sys.path.remove(str(path.parent))
    return module
