"""What a study may say, and every problem with what one does say.

``study(values, check)`` returns the fields in one normal form; problems gather in ``check`` with their lines.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from workbench import prompts as prompt_sets
from workbench import searchspace
from workbench.errors import ParamError
from workbench.params import FIELDS, SEED_MAX, SamplingParams
from workbench.problems import Check, plain, short
from workbench.prompts import PromptSet, checkrows, templates
from workbench.prompts.sources import places
from workbench.records import BASE

if TYPE_CHECKING:
    from workbench.yamlmarks import Path as Where

ENGINES: Final = ("local", "scripted")
KERNELS: Final = ("auto", "int4", "fp32", "bf16")
LATENCY: Final = {"prompts": 8, "warmup": 2, "rounds": 3}
ENGINE: Final[dict[str, Any]] = {"kind": "local", "device": "auto", "kernel": "auto"}
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_DEVICE: Final = re.compile(r"auto|cpu|cuda(:\d+)?")


def study(values: Any, check: Check) -> dict[str, Any]:
    """Check and normalise a whole study."""
    if not isinstance(values, Mapping):
        check.add((), f"a study is a mapping of fields, got {short(values)}")
        return {}
    for key in values:
        if key not in _CHECKS:
            check.unknown((str(key),), "field", _CHECKS)
    given = {"latency": True, **values}
    clean = {key: test(plain(given.get(key)), check) for key, test in _CHECKS.items()}
    _overlap(clean["grid"], clean["fixed"], check)
    searchspace.fits(clean, check)
    return clean


def resolve(name: str, base_dir: Path | None) -> str:
    """Absolute path of what ``name`` names: beside the study file, then in the current directory; else ``name``."""
    for place in places(name, base_dir):
        if place.exists():
            return str(place.resolve())
    return name


def _name(value: Any, check: Check) -> str:
    if value is None:
        return "study"
    if not isinstance(value, str) or not _NAME.fullmatch(value):
        allowed = "letters, digits, '.', '_' and '-', starting with a letter or digit"
        check.add(("name",), f"must be {allowed}, got {short(value)}")
        return "study"
    return value


def _model(value: Any, check: Check) -> str:
    if value is None:
        return "demo"
    if not isinstance(value, str | Path) or not str(value).strip():
        check.add(("model",), f"must be demo, a path or a Hugging Face id, got {short(value)}")
    elif _local(value) and check.check_files and not _exists(str(value), check):
        check.add(("model",), f"no such directory: {value}")
    return str(value)


def _local(value: str | Path) -> bool:
    return isinstance(value, Path) or value.startswith((".", "/", "~"))


def _exists(name: str, check: Check) -> bool:
    return Path(resolve(name, check.base_dir)).exists()


def _adapters(value: Any, check: Check) -> dict[str, str | None]:
    if value is None:
        return {BASE: None}
    items: list[Any] = [value] if isinstance(value, str | Path | Mapping) else value
    if not isinstance(items, Sequence) or not items:
        allowed = "'base', a path, {name: path}, or a list of these"
        check.add(("adapters",), f"must be {allowed}, got {short(value)}")
        return {BASE: None}
    listed = items is value
    out: dict[str, str | None] = {}
    for n, item in enumerate(items):
        where: Where = ("adapters", n) if listed else ("adapters",)
        for name, path in _adapter(item, where, check):
            if name in out:
                rename = "" if name == BASE else "; name one of them: {other_name: path}"
                check.add(where, f"{name!r} is listed twice{rename}")
            out[name] = path
    return out


def _adapter(item: Any, where: Where, check: Check) -> list[tuple[str, str | None]]:
    pairs: list[tuple[Any, Any]]
    if isinstance(item, Mapping):
        pairs = list(item.items())
    elif isinstance(item, str | Path) and str(item).strip():
        pairs = [(BASE, None)] if item == BASE else [(Path(item).name, item)]
    else:
        pairs = [(None, None)]
    good: list[tuple[str, str | None]] = []
    for name, path in pairs:
        text_ok = isinstance(path, str | Path) and str(path).strip()
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            check.add(where, f"must be 'base', a path or {{name: path}}, got {short(item)}")
        elif name == BASE and path is not None:
            check.add(where, "the name 'base' means no adapter; give this one another name")
        elif name != BASE and not text_ok:
            check.add(where, f"adapter {name!r} needs a path, got {short(path)}")
        elif (
            path is not None
            and _local(path)
            and check.check_files
            and not _exists(str(path), check)
        ):
            check.add(where, f"no such directory: {path}")
        else:
            good.append((name, None if path is None else str(path)))
    return good


def _prompts(value: Any, check: Check) -> Any:
    if isinstance(value, PromptSet):
        return value
    if value is None or value in ("", [], ()):
        check.add(("prompts",), "is missing: a prompt file, a list of files, rows or texts")
        return None
    if isinstance(value, Mapping) and set(value) == {"name", "n", "sha256"}:
        text = (
            f"were given in Python (set {value['name']!r}); make the study again with prompts=..."
        )
        check.add(("prompts",), text)
        return None
    listed = not isinstance(value, str | Path | Mapping) and isinstance(value, Sequence)
    if not listed and not isinstance(value, str | Path | Mapping):
        allowed = "a source (file, hf:, builtin:), a list of sources, rows or texts, or a PromptSet"
        check.add(("prompts",), f"must be {allowed}, got {short(value)}")
        return None
    items = list(value) if listed else [value]
    sources = [n for n, v in enumerate(items) if not listed or prompt_sets.is_file_name(v)]
    for n in sources:
        where: Where = ("prompts", n) if listed else ("prompts",)
        for problem in prompt_sets.spec_problems(
            items[n], check.base_dir, check_files=check.check_files
        ):
            check.add(where, problem)
    if not sources:
        for n, problem in checkrows.check_rows(enumerate(items))[1]:
            check.add(("prompts", n), problem)
    return items if listed else value if isinstance(value, Mapping) else str(value)


def _system(value: Any, check: Check) -> str | None:
    if value is not None and (not isinstance(value, str) or not value.strip()):
        check.add(("system",), f"must be a text or null, got {short(value)}")
        return None
    return value


def _templates(value: Any, check: Check) -> dict[str, Any]:
    """Name to template; a null template is the prompt as it is."""
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        check.add(("templates",), f"must be name: template, got {short(value)}")
        return {}
    out: dict[str, Any] = {}
    for name, template in value.items():
        where: Where = ("templates", str(name))
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            allowed = "letters, digits, '.', '_' and '-', starting with a letter or digit"
            check.add(where, f"a template's name must be {allowed}")
        elif template is not None and (problem := templates.check(template)):
            check.add(where, problem)
        out[str(name)] = template
    return out


def _grid(value: Any, check: Check) -> Any:
    if value is None:
        return {}
    if isinstance(value, Mapping):
        named = bool(value) and all(isinstance(v, Mapping) for v in value.values())
        return _named_grid(value, check) if named else _product_grid(value, check)
    if isinstance(value, Sequence) and not isinstance(value, str) and value:
        return [_settings(entry, ("grid", n), check) for n, entry in enumerate(value)]
    allowed = "setting: [values], a list of settings, or name: settings"
    check.add(("grid",), f"must be {allowed}, got {short(value)}")
    return {}


def _named_grid(value: Mapping[Any, Any], check: Check) -> dict[str, Any]:
    out = {}
    for name, entry in value.items():
        if not isinstance(name, str) or not name.strip():
            check.add(("grid",), f"a cell name must be a text, got {name!r}")
        out[str(name)] = _settings(entry, ("grid", str(name)), check)
    return out


def _product_grid(value: Mapping[Any, Any], check: Check) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for key, values in value.items():
        where: Where = ("grid", str(key))
        if key not in FIELDS:
            check.unknown(where, "setting", FIELDS)
        elif isinstance(values, str | Mapping) or not isinstance(values, Sequence) or not values:
            check.add(where, f"must be a list of values, got {short(values)}")
        else:
            for n, item in enumerate(values):
                _setting(key, item, (*where, n), check)
            out[key] = list(values)
    return out


def _settings(entry: Any, where: Where, check: Check) -> dict[str, Any]:
    if not isinstance(entry, Mapping):
        check.add(where, f"must be settings (name: value), got {short(entry)}")
        return {}
    for key, value in entry.items():
        if key in FIELDS:
            _setting(key, value, (*where, key), check)
        else:
            check.unknown((*where, str(key)), "setting", FIELDS)
    return dict(entry)


def _setting(key: str, value: Any, where: Where, check: Check) -> None:
    try:
        SamplingParams(**{key: value})
    except ParamError as error:
        hint = ""
        if (
            isinstance(value, str)
            and key != "stop"
            and re.fullmatch(r"[-+]?\d+e[-+]?\d+", value, re.IGNORECASE)
        ):
            hint = " (a text to YAML: write 1.0e-1, not 1e-1)"
        check.add(where, f"must be {error.allowed}, got {short(value)}{hint}")


def _fixed(value: Any, check: Check) -> dict[str, Any]:
    return {} if value is None else _settings(value, ("fixed",), check)


def _overlap(grid: Any, fixed: Mapping[str, Any], check: Check) -> None:
    if isinstance(grid, dict):
        for key in grid:
            if key in fixed and key in FIELDS and isinstance(grid[key], list):
                check.add(("fixed", key), "is in the grid too; keep one of the two")


def _whole(key: str, low: int, high: int | None, default: int) -> Callable[[Any, Check], int]:
    def test(value: Any, check: Check) -> int:
        return default if value is None else _integer((key,), value, low, high, check)

    return test


def _integer(where: Where, value: Any, low: int, high: int | None, check: Check) -> int:
    top = "" if high is None else f" and at most {high}"
    if (
        isinstance(value, bool)
        or not isinstance(value, int)
        or value < low
        or (high is not None and value > high)
    ):
        check.add(where, f"must be an integer at least {low}{top}, got {short(value)}")
        return low
    return value


def _scorers(value: Any, check: Check) -> tuple[Any, ...]:
    if value is None:
        return ()
    items = list(value) if isinstance(value, list | tuple) else [value]
    seen: list[str] = []
    for n, item in enumerate(items):
        where: Where = ("scorers", n) if isinstance(value, list | tuple) else ("scorers",)
        name = _scorer_name(item)
        if name is None:
            check.add(where, f"must be a name or {{name: {{options}}}}, got {short(item)}")
        elif name in seen:
            check.add(where, f"{name!r} is listed twice")
        seen.append(name or "")
    return tuple(items)


def _scorer_name(item: Any) -> str | None:
    if isinstance(item, str):
        return item.strip() or None
    if isinstance(item, Mapping):
        pairs = list(item.items())
        ok = len(pairs) == 1 and isinstance(pairs[0][0], str)
        ok = ok and (pairs[0][1] is None or isinstance(pairs[0][1], Mapping))
        return pairs[0][0] if ok else None
    name = getattr(item, "name", None)
    return name if isinstance(name, str) and callable(getattr(item, "score", None)) else None


def _split(value: Any, check: Check) -> dict[str, float]:
    if value is None or value is False:
        return {"confirm": 0.0}
    clean = _mapping("split", value, ("confirm",), check)
    share = clean.get("confirm", 0)
    if isinstance(share, bool) or not isinstance(share, int | float) or not 0 <= share < 1:
        text = f"must be a number at least 0 and below 1, got {short(share)}"
        check.add(("split", "confirm"), text)
        share = 0
    return {"confirm": float(share)}


def _mapping(key: str, value: Any, known: Sequence[str], check: Check) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        check.add((key,), f"must hold {', '.join(known)}; got {short(value)}")
        return {}
    for name in value:
        if name not in known:
            check.unknown((key, str(name)), "key", known)
    return {name: value[name] for name in known if name in value}


def _latency(value: Any, check: Check) -> dict[str, int] | None:
    if value is True:
        return dict(LATENCY)
    if value is None or value is False:
        return None
    clean = LATENCY | _mapping("latency", value, tuple(LATENCY), check)
    for name, low in {"prompts": 1, "warmup": 0, "rounds": 1}.items():
        clean[name] = _integer(("latency", name), clean[name], low, None, check)
    return clean


def _engine(value: Any, check: Check) -> dict[str, Any]:
    if value is None:
        return dict(ENGINE)
    if isinstance(value, str):
        value = {"kind": value}
    clean = ENGINE | _mapping("engine", value, (*ENGINE, "max_rows", "memory_gib"), check)
    for key, allowed in {"kind": ENGINES, "kernel": KERNELS}.items():
        if clean[key] not in allowed:
            text = f"must be one of {', '.join(allowed)}, got {short(clean[key])}"
            check.add(("engine", key), text)
    if not isinstance(clean["device"], str) or not _DEVICE.fullmatch(clean["device"]):
        text = f"must be auto, cpu, cuda or cuda:N, got {short(clean['device'])}"
        check.add(("engine", "device"), text)
    if clean.get("max_rows") is not None:
        _integer(("engine", "max_rows"), clean["max_rows"], 1, None, check)
    memory = clean.get("memory_gib")
    wrong = isinstance(memory, bool) or not isinstance(memory, int | float) or not memory > 0
    if memory is not None and wrong:
        check.add(("engine", "memory_gib"), f"must be a number above 0, got {short(memory)}")
    return {key: v for key, v in clean.items() if v is not None}


def _baseline(value: Any, check: Check) -> str | dict[str, Any] | None:
    if value is None or (isinstance(value, str) and value.strip()):
        return value
    if not isinstance(value, Mapping):
        text = f"must be a cell's name, label or id, or its settings, got {short(value)}"
        check.add(("baseline",), text)
        return None
    names = {key: str(value[key]) for key in ("adapter", "template") if key in value}
    settings = {key: item for key, item in value.items() if key not in names}
    return _settings(settings, ("baseline",), check) | names


def _defaults(value: Any, check: Check) -> str:
    if value not in (None, "card", "checkpoint"):
        check.add(("defaults",), f"must be card or checkpoint, got {short(value)}")
    return value if value == "checkpoint" else "card"


def _truth(name: str) -> Callable[[Any, Check], bool]:
    """A check of a field that is true or false, and false if absent."""

    def checked(value: Any, check: Check) -> bool:
        if value is not None and not isinstance(value, bool):
            check.add((name,), f"must be true or false, got {short(value)}")
        return value is True

    return checked


_CHECKS: Final[dict[str, Callable[[Any, Check], Any]]] = {
    "name": _name,
    "model": _model,
    "adapters": _adapters,
    "prompts": _prompts,
    "system": _system,
    "templates": _templates,
    "grid": _grid,
    "search": searchspace.check,
    "fixed": _fixed,
    "repeats": _whole("repeats", 1, None, 1),
    "seed": _whole("seed", 0, SEED_MAX, 0),
    "scorers": _scorers,
    "split": _split,
    "latency": _latency,
    "engine": _engine,
    "baseline": _baseline,
    "defaults": _defaults,
    "allow_inert": _truth("allow_inert"),
    "allow_overlap": _truth("allow_overlap"),
}
