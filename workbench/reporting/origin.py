"""Where the numbers of a report come from, and how to make them again."""

from __future__ import annotations

import shlex
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, Final

from workbench import fingerprint
from workbench.reporting.page import Html, fold, join, made_with, pairs, paragraphs, pre

if TYPE_CHECKING:
    from workbench.reporting.facts import Facts

MOST_CHARS: Final = 60_000
"""Of the study text; the whole is in ``manifest.json``."""


def record(facts: Facts) -> Html:
    """Study, prompts, model, machine and software."""
    m = facts.manifest
    return join(
        _what(m),
        _engine(m["engine"], m.get("trained_on") or {}),
        _machine(m),
        pairs(fingerprint.of(facts.run.path), "Rows of the record"),
        fold("Packages", pairs(m.get("packages") or {}, "Versions")),
    )


def _what(m: dict[str, Any]) -> Html:
    prompts, git = m["prompt_set"], m.get("git") or {}
    commit = f"{git.get('commit')}{' with changes' if git.get('dirty') else ''}" if git else None
    command = [PurePath(a).name if i == 0 else a for i, a in enumerate(m.get("command_line") or [])]
    return pairs(
        {
            "study": f"{m['study']['name']}, sha256 {m['study']['sha256']}",
            "content": f"sha256 {m.get('content_hash')}",
            "prompts": f"{prompts['name']} ({prompts['source']}), {prompts['n_prompts']:,}, sha256 {prompts['sha256']}",
            "scorers": ", ".join(_scorer(s) for s in m["scorers"]) or "none",
            "run": m["run_id"],
            "started": m.get("started_utc"),
            "ended": m.get("ended_utc") or "not yet",
            "command": shlex.join(command),
            "code": commit,
            "rerun of": m.get("rerun_of"),
            "reproduced": reproduced(m["verified"][-1]) if m.get("verified") else None,
        },
        "Study",
    )


def _scorer(scorer: dict[str, Any]) -> str:
    options = "".join(f" {name}={value!r}" for name, value in scorer["options"].items())
    return f"{scorer['name']} version {scorer['version']}{options}"


def _engine(engine: dict[str, Any], trained_on: dict[str, Any]) -> Html:
    about = (engine.get("extra") or {}).get("adapters") or {}
    adapters = (
        f"{name}: sha256 {digest}{_adapter(about.get(name), trained_on.get(name))}"
        for name, digest in (engine.get("adapters") or {}).items()
    )
    return pairs(
        {
            "model": engine["model"],
            "revision": engine.get("revision"),
            "weights": engine.get("weight_hash") and f"sha256 {engine['weight_hash']}",
            "quantization": engine["quantization"],
            "kernel": f"{engine['kernel']}: {engine['kernel_reason']}",
            "activations": engine.get("dtype"),
            "device": engine["device"],
            "tokenizer": engine.get("tokenizer_hash") and f"sha256 {engine['tokenizer_hash']}",
            "chat template": engine.get("chat_template_hash")
            and f"sha256 {engine['chat_template_hash']}",
            "context": engine.get("context_length") and f"{engine['context_length']:,} tokens",
            "adapters": "; ".join(adapters),
            "checkpoint's own defaults": engine.get("checkpoint_defaults"),
        },
        "Model",
    )


def _adapter(about: dict[str, Any] | None, trained_on: list[str] | None) -> str:
    """What is known of an adapter beside its hash.

    Args:
        about: What the engine says of it.
        trained_on: The run's prompts that it was trained on; None if that is not known.
    """
    if about is None:
        return ""
    shift = about.get("shift_nats")
    acts = "" if shift is None else f", moves a token's log-probability by {shift:.2g} nats"
    if trained_on is None:
        seen = "no record of what it was trained on"
    elif trained_on:
        seen = f"trained on {len(trained_on):,} of these prompts"
    else:
        seen = "trained on none of these prompts"
    kinds = ", ".join(f"{kind} {n:,}" for kind, n in about.get("matched", {}).items())
    layers = f"{about['n_modules']:,} layers" + (f" ({kinds})" if kinds else "")
    return f", rank {about['rank']}, {layers}{acts}, {seen}"


def _machine(m: dict[str, Any]) -> Html:
    cpu, system = m.get("cpu") or {}, m.get("platform") or {}
    gpus = (
        f"{g['name']}, {g['memory_bytes'] / 2**30:.0f} GiB, driver {g.get('driver')}"
        for g in m.get("gpu") or []
    )
    return pairs(
        {
            "processor": f"{cpu.get('model') or 'unknown'}, {cpu.get('usable_cores')} cores usable",
            "instructions": ", ".join(cpu.get("flags") or []),
            "memory": m.get("memory_bytes") and f"{m['memory_bytes'] / 2**30:.1f} GiB",
            "GPU": "; ".join(gpus) or "none",
            "system": " ".join(str(v) for v in system.values() if v),
            "Python": m.get("python"),
            "threads": ", ".join(f"{k}={v}" for k, v in (m.get("threads") or {}).items() if v),
        },
        "Machine",
    )


def again(facts: Facts) -> Html:
    """How to make the numbers again: from the record, and from nothing."""
    text = facts.manifest["study"]["text"]
    shown = (
        text
        if len(text) <= MOST_CHARS
        else f"{text[:MOST_CHARS]}\n# ... the rest is in manifest.json"
    )
    return join(
        paragraphs(
            [
                "From the record of this run, without the model; the same seed gives the same numbers:"
            ]
        ),
        pre(from_record(facts)),
        paragraphs(["From nothing, with the study below and the same prompts:"]),
        pre(from_nothing(facts)),
        fold("The study in full", pre(shown)),
    )


def from_record(facts: Facts) -> str:
    """The commands that read the run."""
    where = shlex.quote(f"results/{facts.manifest['study']['name']}/{facts.manifest['run_id']}")
    return f"workbench summary {where}\nworkbench report {where} --verify"


def from_nothing(facts: Facts) -> str:
    """The commands that run the study anew."""
    name = shlex.quote(f"{facts.manifest['study']['name']}.yaml")
    n = int(facts.manifest["prompt_set"]["n_prompts"])
    given = facts.manifest.get("command_line") or []
    limit = (
        f" --limit {n}" if any(a == "--limit" or a.startswith("--limit=") for a in given) else ""
    )
    return f"workbench run {name} --new{limit}\nworkbench report latest"


def reproduced(check: dict[str, Any]) -> str:
    """How a verification of the run's rows ended, in words; an entry of the manifest's "verified"."""
    shares = ", ".join(
        f"{found['n_same']:,} of {found['n_compared']:,} {mode}"
        for mode, found in check["modes"].items()
    )
    return f"token-identical when made again on {check['ended_utc'][:10]}: {shares}"


def made_on() -> Html:
    """What the page was made with; nothing in it depends on the clock."""
    system, *packages = (f"{k} {v}".removeprefix("system ") for k, v in made_with().items())
    return Html(f'<p class="made">Made on {system}, by {", ".join(packages)}.</p>')
