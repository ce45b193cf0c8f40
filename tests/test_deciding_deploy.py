"""The files that put a cell to use: valid where they are read, and nothing dropped in silence."""

from __future__ import annotations

import ast
import copy
import json
import re
import shlex
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import jsonschema
import pytest
import torch
from contract import answer, ask
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import LoraConfig, get_peft_model
from transformers import GenerationConfig

from workbench.deciding.deploy import (
    GENERATION_CONFIG,
    OPENAI,
    QUESTION,
    SNIPPET,
    VLLM,
    WORKERS_AI,
    Target,
    artefacts,
    generation_config,
)
from workbench.params import SamplingParams

if TYPE_CHECKING:
    from pathlib import Path

    from workbench.engines.local.engine import LocalEngine
    from workbench.engines.local.loader import LoadedModel

MODEL = "Qwen/Qwen1.5-7B-Chat-AWQ"


def optional(values: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """A value or none."""
    return st.none() | values


PARAMS = st.builds(
    SamplingParams,
    max_tokens=st.integers(1, 4096),
    temperature=st.just(0.0) | st.floats(0.01, 5),
    top_p=optional(st.floats(0.01, 2)),
    top_k=optional(st.integers(1, 200)),
    min_p=optional(st.floats(0, 1)),
    repetition_penalty=optional(st.floats(0.1, 2)),
    frequency_penalty=optional(st.floats(-2, 2)),
    presence_penalty=optional(st.floats(-2, 2)),
    stop=optional(st.lists(st.text(min_size=1, max_size=5), min_size=1, max_size=2)),
)


@pytest.fixture(scope="module")
def card(root: Path) -> dict[str, Any]:
    """The request schema of the hosted model's card."""
    text = (root / "tests/data/workers-ai-request.schema.json").read_text("utf-8")
    schema: dict[str, Any] = json.loads(text)
    return schema


@given(params=PARAMS, adapter=st.none() | st.just("terse"), system=st.none() | st.just("Be short."))
@settings(max_examples=200)
def test_workers_ai_is_valid(card, params, adapter, system):
    """Whatever the settings, the body keeps to the card, says every setting it can, and the note names the others."""
    target = Target(params, MODEL, adapter=adapter, path="./terse", system=system)
    made = artefacts(target)[WORKERS_AI]
    body = json.loads(made.text)
    jsonschema.validate(body, card)
    canonical = params.canonical()
    notes = " ".join(made.notes)
    for name, value in canonical.to_dict().items():
        if value is not None and name not in body:
            assert f"cannot express {name}" in notes
        elif value is not None:
            assert body[name] == value
    assert body.get("lora") == adapter


@given(params=PARAMS)
@settings(max_examples=200)
def test_transformers_takes_the_config(params):
    """Whatever the settings, transformers finds nothing wrong with the file, and no field is left to be filled in."""
    fields = generation_config(params)
    config = GenerationConfig(**fields)
    config.validate(strict=True)
    canonical = params.canonical()
    assert config.do_sample is not canonical.greedy
    assert config.max_new_tokens == canonical.max_tokens
    assert config.repetition_penalty == (canonical.repetition_penalty or 1.0)
    if not canonical.greedy:
        assert config.temperature == canonical.temperature
        assert config.top_k == (canonical.top_k or 0)
        assert config.top_p == (1.0 if canonical.top_p is None else canonical.top_p)
        assert config.min_p == (canonical.min_p or 0.0)


def test_generation_config_of_a_cell():
    """Every field is written, top_k 0 where it is off."""
    text = artefacts(Target(SamplingParams(temperature=0.3, max_tokens=24), MODEL))[
        GENERATION_CONFIG
    ].text
    assert json.loads(text) == {
        "do_sample": True,
        "max_new_tokens": 24,
        "temperature": 0.3,
        "top_k": 0,
        "top_p": 1.0,
        "min_p": 0.0,
        "repetition_penalty": 1.0,
        "stop_strings": None,
    }


def test_greedy_config():
    """A greedy cell does not sample; its other fields have values that transformers accepts there."""
    fields = generation_config(SamplingParams(temperature=0, top_k=20, min_p=0.1))
    assert (fields["do_sample"], fields["temperature"], fields["top_k"], fields["min_p"]) == (
        False,
        1.0,
        50,
        None,
    )


def test_penalties_are_not_dropped_in_silence():
    """What transformers and vLLM's defaults lack is said where it is missing, and sent where it can be."""
    files = artefacts(Target(SamplingParams(frequency_penalty=0.5, presence_penalty=-0.2), MODEL))
    said = "transformers has no frequency_penalty 0.5 and no presence_penalty -0.2: left out, so this is not the cell that was measured."
    assert said in files[GENERATION_CONFIG].notes
    assert said in files[SNIPPET].notes
    assert (
        "The server has no default for frequency_penalty 0.5 and presence_penalty -0.2: every request must say it, as openai.json does."
        in files[VLLM].notes
    )
    body = json.loads(files[OPENAI].text)
    assert (body["frequency_penalty"], body["presence_penalty"]) == (0.5, -0.2)
    assert (
        "The card cannot express presence_penalty -0.2: left out, so this is not the cell that was measured."
        in files[WORKERS_AI].notes
    )


def test_openai_body():
    """The body says every setting, those that are off too, and asks for the adapter by its name."""
    target = Target(
        SamplingParams(temperature=0.3, top_k=20),
        MODEL,
        adapter="terse",
        path="./terse",
        system="Be short.",
    )
    assert json.loads(artefacts(target)[OPENAI].text) == {
        "model": "terse",
        "messages": [
            {"role": "system", "content": "Be short."},
            {"role": "user", "content": QUESTION},
        ],
        "max_tokens": 256,
        "temperature": 0.3,
        "top_p": 1.0,
        "min_p": 0.0,
        "repetition_penalty": 1.0,
        "frequency_penalty": 0.0,
        "presence_penalty": 0.0,
        "top_k": 20,
    }


@pytest.mark.parametrize(("rank", "fits"), [(None, 16), (8, 16), (20, 32), (64, 64), (300, 320)])
def test_vllm_flags(rank, fits):
    """The script is a shell's, serves model and adapter, and its override is JSON with every setting."""
    target = Target(
        SamplingParams(temperature=0.3),
        MODEL,
        revision="abc",
        adapter="it's terse",
        path="./adapters/it's terse",
        rank=rank,
    )
    text = artefacts(target, 'Use "this"\nnow: $(rm -rf ~)')[VLLM].text
    subprocess.run(["/bin/sh", "-n"], input=text, text=True, check=True)
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    words = shlex.split("\n".join(lines).replace("\\\n", " "))
    assert words[:6] == ["exec", "vllm", "serve", MODEL, "--revision", "abc"]
    assert words[words.index("--max-lora-rank") + 1] == str(fits)
    assert words[words.index("--lora-modules") + 1] == "it's terse=./adapters/it's terse"
    assert json.loads(words[words.index("--override-generation-config") + 1]) == {
        "temperature": 0.3,
        "top_k": -1,
        "top_p": 1.0,
        "min_p": 0.0,
        "repetition_penalty": 1.0,
        "max_new_tokens": 256,
    }
    assert "\nnow" not in text


def test_the_demo_model_has_no_name_elsewhere():
    """VLLM cannot fetch the demo model: the script says what to do instead of failing far off."""
    text = artefacts(Target(SamplingParams(), "demo", awq=True))[VLLM].text
    done = subprocess.run(
        ["/bin/sh"], input=text, text=True, capture_output=True, check=False, env={}
    )
    assert done.returncode != 0
    assert "set MODEL to the folder of a checkpoint" in done.stderr


@given(params=PARAMS, headline=st.text(max_size=30), system=st.none() | st.text(max_size=20))
@settings(max_examples=100)
def test_the_snippet_is_python(params, headline, system):
    """Whatever is in the settings, the system message and the headline, the snippet is a program."""
    for awq in (False, True):
        target = Target(
            params, MODEL, revision="abc", awq=awq, adapter="a", path="./a", system=system
        )
        ast.parse(artefacts(target, headline)[SNIPPET].text)


def test_a_template_is_told():
    """A wording that is not the study's plain prompt is in the notes of every file that asks something."""
    files = artefacts(Target(SamplingParams(), MODEL, template="Q: {{ question }}\nA:"))
    said = "The prompts were worded by a template, and so must yours be: Q: {{ question }} A:"
    assert all(said in files[name].notes for name in (SNIPPET, OPENAI, VLLM, WORKERS_AI))


def test_stop_texts():
    """Stop texts go where they can, and the card's lack of them is said."""
    files = artefacts(Target(SamplingParams(stop=("\n",)), MODEL))
    assert json.loads(files[OPENAI].text)["stop"] == ["\n"]
    assert json.loads(files[GENERATION_CONFIG].text)["stop_strings"] == ["\n"]
    assert "tokenizer=tokenizer" in files[SNIPPET].text
    assert any(note.startswith("The card cannot express stop") for note in files[WORKERS_AI].notes)


@pytest.mark.model
def test_the_snippet_answers_like_the_engine(
    demo_loaded: LoadedModel, demo_engine: LocalEngine, tmp_path: Path
):
    """The snippet, run as a program with an adapter, prints what the engine answers with it."""
    torch.manual_seed(0)
    empty = type(demo_loaded.model)(copy.deepcopy(demo_loaded.model.config))
    config = LoraConfig(
        task_type="CAUSAL_LM", r=4, lora_alpha=8, target_modules=["q_proj", "v_proj"]
    )
    wrapped = get_peft_model(empty, config)
    for name, weight in wrapped.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.02)
    wrapped.save_pretrained(tmp_path / "own")
    params = SamplingParams(temperature=0, max_tokens=12, repetition_penalty=1.1)
    target = Target(params, "demo", awq=True, adapter="own", path=str(tmp_path / "own"))
    program = tmp_path / SNIPPET
    program.write_text(artefacts(target)[SNIPPET].text, "utf-8")
    done = subprocess.run(
        [sys.executable, str(program)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    demo_engine.load_adapter(str(tmp_path / "own"), "own")
    try:
        found = answer(demo_engine, ask(QUESTION, adapter="own", **params.to_dict()))
    finally:
        demo_engine.unload_adapter("own")
    assert done.stdout.strip() == found.text.strip()
    assert re.search(r"\w", found.text)
