"""Files that put a cell to use elsewhere: transformers, OpenAI-compatible servers, Workers AI, vLLM.

Every setting is written out, those that are off too, because what is absent is filled in: transformers takes top_k 50 for an
absent one, and vLLM the values of the checkpoint's ``generation_config.json``. What a place cannot express is left out of its file
and said in a note.
"""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from workbench.adapters.elsewhere import VLLM_RANK, VLLM_RANKS
from workbench.errors import ParamError
from workbench.params import SamplingParams

if TYPE_CHECKING:
    from collections.abc import Mapping

GENERATION_CONFIG: Final = "generation_config.json"
OPENAI: Final = "openai.json"
WORKERS_AI: Final = "workers-ai.json"
VLLM: Final = "vllm.sh"
SNIPPET: Final = "transformers_snippet.py"
QUESTION: Final = "What is 17 + 25?"
DEMO: Final = "demo"
_OFF: Final[dict[str, float]] = {
    "top_p": 1.0,
    "min_p": 0.0,
    "repetition_penalty": 1.0,
    "frequency_penalty": 0.0,
    "presence_penalty": 0.0,
}
"""The value with which a setting does nothing, everywhere."""
_PENALTIES: Final = ("frequency_penalty", "presence_penalty")


@dataclass(frozen=True, slots=True)
class Target:
    """What is put to use.

    Attributes:
        params: The settings.
        model: As the study names it.
        revision: Its commit on the Hugging Face Hub, if known.
        awq: True for an AWQ checkpoint.
        adapter: Name of the LoRA adapter, or None.
        path: Its path as the study writes it.
        rank: Its rank, if known.
        system: System message of every prompt, or None.
        template: How prompts are worded, as text, or None.
    """

    params: SamplingParams
    model: str
    revision: str | None = None
    awq: bool = False
    adapter: str | None = None
    path: str | None = None
    rank: int | None = None
    system: str | None = None
    template: str | None = None


@dataclass(frozen=True, slots=True)
class Artefact:
    """A file to deploy with.

    Attributes:
        text: What is in it.
        about: What it is for.
        notes: What to know before using it, a sentence each.
    """

    text: str
    about: str
    notes: tuple[str, ...]


def artefacts(target: Target, headline: str = "") -> dict[str, Artefact]:
    """The files, by name.

    Args:
        target: What is put to use.
        headline: What it is, for comments in the files; one line.
    """
    return {
        GENERATION_CONFIG: _generation_config(target),
        SNIPPET: _snippet(target, headline),
        OPENAI: _openai(target),
        VLLM: _vllm(target, headline),
        WORKERS_AI: _workers_ai(target),
    }


def _json(values: Mapping[str, Any]) -> str:
    return json.dumps(values, indent=2, ensure_ascii=False) + "\n"


def _on(params: SamplingParams, name: str) -> Any:
    """A setting that does something, or None."""
    return getattr(params.canonical(), name)


def messages(target: Target) -> list[dict[str, str]]:
    """An example of what is asked: the system message of the study, if any, and a question."""
    first = [{"role": "system", "content": target.system}] if target.system else []
    return [*first, {"role": "user", "content": QUESTION}]


def _worded(target: Target) -> list[str]:
    """What to know of the wording."""
    if target.template is None:
        return []
    return [
        f"The prompts were worded by a template, and so must yours be: {' '.join(target.template.split())}"
    ]


# ----------------------------------------------------------------------------------------------- transformers


def generation_config(params: SamplingParams) -> dict[str, Any]:
    """Settings as fields of transformers' ``GenerationConfig``; frequency and presence penalties have none.

    A greedy cell has ``do_sample`` false and the neutral values of the sampling fields, since transformers refuses others there.
    """
    p = params.canonical()
    fields: dict[str, Any] = {"do_sample": not p.greedy, "max_new_tokens": p.max_tokens}
    if p.greedy:
        fields |= {"temperature": 1.0, "top_k": 50, "top_p": 1.0, "min_p": None}
    else:
        fields |= {"temperature": p.temperature, "top_k": p.top_k or 0}
        fields |= {
            n: _OFF[n] if getattr(p, n) is None else getattr(p, n) for n in ("top_p", "min_p")
        }
    fields["repetition_penalty"] = (
        _OFF["repetition_penalty"] if p.repetition_penalty is None else p.repetition_penalty
    )
    fields["stop_strings"] = list(p.stop) if p.stop else None
    return fields


def _without_penalties(params: SamplingParams, where: str) -> list[str]:
    left = [f"{n} {getattr(params, n):g}" for n in _PENALTIES if _on(params, n) is not None]
    if not left:
        return []
    return [
        f"{where} has no {' and no '.join(left)}: left out, so this is not the cell that was measured."
    ]


def _generation_config(target: Target) -> Artefact:
    notes = _without_penalties(target.params, "transformers")
    notes.append(
        "It has no token ids: keep eos_token_id, bos_token_id and pad_token_id of the checkpoint's own file."
    )
    notes.append(
        "It takes the place of the checkpoint's own file, or becomes model.generation_config: given to generate() beside it, "
        "transformers fills in from the checkpoint, and 4.50 to 4.57 even replace what equals a default."
    )
    if target.params.greedy:
        notes.append(
            "Greedy: do_sample is false, and the other sampling fields have values that do nothing."
        )
    if target.params.stop:
        notes.append("stop_strings acts only if generate() is given the tokenizer.")
    return Artefact(_json(generation_config(target.params)), "for transformers", tuple(notes))


_HEAD: Final = '''\
"""{headline}

Usage: python {name} [QUESTION]
"""

import sys

import torch
from transformers import {imports}
'''
_PLAIN_LOAD: Final = """\
tokenizer = AutoTokenizer.from_pretrained(MODEL{revision})
model = AutoModelForCausalLM.from_pretrained(MODEL{revision}, dtype="auto")
model.to("cuda" if torch.cuda.is_available() else "cpu")
"""
_AWQ_LOAD: Final = """\
loaded = load(MODEL)  # reads AWQ checkpoints on any machine
model, tokenizer = loaded.model, loaded.tokenizer
"""
_AWQ_IDS: Final = "CONFIG.eos_token_id = list(loaded.eos_token_ids)\n"
_TAIL: Final = """\

# The checkpoint's own settings must go: transformers fills in from them, even what was given if it equals a default.
for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
    setattr(CONFIG, name, getattr(model.generation_config, name))
{ids}model.generation_config = CONFIG

messages = {messages}
question = " ".join(sys.argv[1:])
if question:
    messages[-1]["content"] = question
inputs = tokenizer.apply_chat_template(
    messages, add_generation_prompt=True, return_tensors="pt", return_dict=True
).to(model.device)
with torch.inference_mode():
    output = model.generate(**inputs{more})
text = tokenizer.decode(output[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
{trim}print(text)
"""
_TRIM: Final = """\
for stop in CONFIG.stop_strings:  # transformers leaves it at the end
    text = text.split(stop)[0]
"""


def _snippet(target: Target, headline: str) -> Artefact:
    own = target.awq or target.model == DEMO
    imports = "GenerationConfig" if own else "AutoModelForCausalLM, AutoTokenizer, GenerationConfig"
    text = _HEAD.format(
        headline=_quiet(headline or "The chosen cell."), name=SNIPPET, imports=imports
    )
    text += "from peft import PeftModel\n" if target.adapter else ""
    text += "\nfrom workbench.engines.local.loader import load\n" if own else ""
    text += f"\nMODEL = {target.model!r}\n"
    text += f"ADAPTER = {target.path!r}\n" if target.adapter else ""
    fields = "".join(f"    {k}={v!r},\n" for k, v in generation_config(target.params).items())
    text += f"CONFIG = GenerationConfig(\n{fields})\n\n"
    revision = f", revision={target.revision!r}" if target.revision else ""
    text += _AWQ_LOAD if own else _PLAIN_LOAD.format(revision=revision)
    text += "model = PeftModel.from_pretrained(model, ADAPTER)\n" if target.adapter else ""
    more = ", tokenizer=tokenizer" if target.params.stop else ""
    text += _TAIL.format(
        messages=repr(messages(target)),
        more=more,
        ids=_AWQ_IDS if own else "",
        trim=_TRIM if target.params.stop else "",
    )
    needs = [
        "transformers 4.56 or newer",
        *(["peft"] if target.adapter else []),
        *(["this package"] if own else []),
    ]
    notes = [
        f"Needs {', '.join(needs)}.",
        *_without_penalties(target.params, "transformers"),
        *_worded(target),
    ]
    if not target.params.greedy:
        notes.append(
            "It draws by torch's generator: from the same distribution, but not the same answers as the run."
        )
    return Artefact(text, "an answer with transformers", tuple(notes))


def _quiet(text: str) -> str:
    """A line that can stand in a docstring or a comment."""
    shown = "".join(c if c.isprintable() else " " for c in text)
    return " ".join(shown.replace("\\", "/").replace('"', "'").split())


# ------------------------------------------------------------------------------------ OpenAI-compatible servers


def _openai(target: Target) -> Artefact:
    p = target.params.canonical()
    body: dict[str, Any] = {
        "model": target.adapter or target.model,
        "messages": messages(target),
        "max_tokens": p.max_tokens,
        "temperature": p.temperature,
        **{n: off if getattr(p, n) is None else getattr(p, n) for n, off in _OFF.items()},
        "top_k": p.top_k or -1,
    }
    if p.stop:
        body["stop"] = list(p.stop)
    notes = [
        "top_k (-1 is off), min_p and repetition_penalty are additions of vLLM and others; OpenAI's own service refuses them."
    ]
    if target.adapter:
        notes.append(f"The model is the adapter {target.adapter!r}, as vLLM names it.")
    return Artefact(_json(body), "body of POST /v1/chat/completions", (*notes, *_worded(target)))


def _vllm(target: Target, headline: str) -> Artefact:
    p = target.params.canonical()
    config: dict[str, Any] = {
        "temperature": p.temperature,
        "top_k": p.top_k or -1,
        **{
            n: _OFF[n] if getattr(p, n) is None else getattr(p, n)
            for n in ("top_p", "min_p", "repetition_penalty")
        },
        "max_new_tokens": p.max_tokens,
    }
    model = '"$MODEL"' if target.model == DEMO else shlex.quote(target.model)
    flags = [f"vllm serve {model}"]
    flags += [f"--revision {shlex.quote(target.revision)}"] if target.revision else []
    notes = []
    if target.adapter:
        rank = target.rank or VLLM_RANK
        fits = next((r for r in VLLM_RANKS if r >= max(rank, VLLM_RANK)), VLLM_RANKS[-1])
        module = shlex.quote(f"{target.adapter}={target.path}")
        flags += ["--enable-lora", f"--max-lora-rank {fits}", f"--lora-modules {module}"]
        notes.append(
            f"Ask for the model {target.adapter!r}; the base model's own name answers without the adapter."
        )
        if rank > VLLM_RANKS[-1]:
            notes.append(f"vLLM takes ranks to {VLLM_RANKS[-1]}, and this adapter has {rank}.")
    flags.append(f"--override-generation-config {shlex.quote(json.dumps(config))}")
    head = [
        "#!/bin/sh",
        f"# {_quiet(headline or 'The chosen cell.')}",
        "# These are defaults: a request may still say otherwise.",
    ]
    if target.model == DEMO:
        head.append(
            ': "${MODEL:?the demo model has no name elsewhere: set MODEL to the folder of a checkpoint}"'
        )
    text = "\n".join([*head, "exec " + " \\\n  ".join([*flags, '"$@"'])]) + "\n"
    left = [f"{n} {getattr(p, n):g}" for n in _PENALTIES if getattr(p, n) is not None]
    left += [f"stop {', '.join(map(repr, p.stop))}"] if p.stop else []
    if left:
        notes.append(
            f"The server has no default for {' and '.join(left)}: every request must say it, as {OPENAI} does."
        )
    notes.append("max_new_tokens is the most that any request gets.")
    return Artefact(text, "serves it with vLLM", (*notes, *_worded(target)))


# --------------------------------------------------------------------------------------------------- Workers AI


def _workers_ai(target: Target) -> Artefact:
    p = target.params.canonical()
    body: dict[str, Any] = {"messages": messages(target)}
    wanted = {
        "max_tokens": p.max_tokens,
        "temperature": p.temperature,
        **{
            n: _OFF[n] if getattr(p, n) is None else getattr(p, n)
            for n in ("top_p", "repetition_penalty", *_PENALTIES)
        },
        "top_k": p.top_k,
        "min_p": p.min_p,
        "stop": None if p.stop is None else list(p.stop),
    }
    notes = []
    for name, value in wanted.items():
        if value is None:
            continue
        try:
            SamplingParams.from_dict({name: value}, profile="card")
        except ParamError:
            notes.append(
                f"The card cannot express {name} {value}: left out, so this is not the cell that was measured."
            )
        else:
            body[name] = value
    if p.top_k is None and not p.greedy:
        notes.append(
            "top_k is absent, since the card has no value for off: what the service takes then is not known."
        )
    if target.adapter:
        body["lora"] = target.adapter
        notes.append(
            "lora is the name or id of the adapter as uploaded; the card has it beside prompt only, and takes it with messages too."
        )
    return Artefact(_json(body), "body of POST /ai/run/MODEL", (*notes, *_worded(target)))
