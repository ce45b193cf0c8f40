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
from hypothesis import example, given, settings
from hypothesis import strategies as st
from peft import LoraConfig, get_peft_model
from tokenizers import Tokenizer
from tokenizers.decoders import Fuse
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Split
from transformers import (
    AutoModelForCausalLM,
    GenerationConfig,
    GenerationMixin,
    LlamaConfig,
    PreTrainedTokenizerFast,
)

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
@example(params=SamplingParams(), headline="\x00", system=None)
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


def test_what_an_absent_top_k_does_is_not_claimed():
    """The card cannot say that top_k is off, and what the service then takes is not known."""
    said = "top_k is absent, since the card has no value for off: what the service takes then is not known."
    assert said in artefacts(Target(SamplingParams(), MODEL))[WORKERS_AI].notes
    for params in (SamplingParams(top_k=20), SamplingParams(temperature=0)):
        assert said not in artefacts(Target(params, MODEL))[WORKERS_AI].notes


def test_stop_texts():
    """Stop texts go where they can, and the card's lack of them is said."""
    files = artefacts(Target(SamplingParams(stop=("\n",)), MODEL))
    assert json.loads(files[OPENAI].text)["stop"] == ["\n"]
    assert json.loads(files[GENERATION_CONFIG].text)["stop_strings"] == ["\n"]
    assert "tokenizer=tokenizer" in files[SNIPPET].text
    assert any(note.startswith("The card cannot express stop") for note in files[WORKERS_AI].notes)


# ------------------------------------------------------------------------------ what transformers makes of the snippet

OWN: dict[str, Any] = {
    "do_sample": True,
    "repetition_penalty": 1.3,
    "temperature": 0.7,
    "top_k": 20,
    "top_p": 0.8,
    "min_p": 0.05,
    "no_repeat_ngram_size": 3,
}
"""Sampling that a checkpoint brings along."""


@pytest.fixture(scope="module")
def opinionated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random checkpoint with a tokenizer of letters, whose generation_config.json has settings of its own."""
    folder = tmp_path_factory.mktemp("opinionated")
    letters = [*"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789 .,?+:'"]
    names = ["<s>", "</s>", "<unk>", *letters]
    model = WordLevel({name: i for i, name in enumerate(names)}, unk_token="<unk>")
    made = Tokenizer(model)
    made.pre_tokenizer = Split("", "isolated")
    made.decoder = Fuse()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=made, bos_token="<s>", eos_token="</s>")
    tokenizer.chat_template = "{% for m in messages %}{{ m.content }}{% endfor %}"
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    shape = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 2, "vocab_size": len(names)}
    config = LlamaConfig(**shape, **heads, bos_token_id=0, eos_token_id=1, pad_token_id=1)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    ids = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1}
    (folder / GENERATION_CONFIG).write_text(json.dumps(OWN | ids), "utf-8")
    return folder


def ran(
    target: Target, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> tuple[GenerationConfig, list[str], str]:
    """What the snippet samples with when it is run: the effective settings, what acts on the logits, and what it prints."""
    seen: list[Any] = []
    sample = GenerationMixin._sample

    def noted(self: Any, *args: Any, **kwargs: Any) -> Any:
        seen.extend([kwargs["generation_config"], kwargs["logits_processor"]])
        return sample(self, *args, **kwargs)

    monkeypatch.setattr(GenerationMixin, "_sample", noted)
    monkeypatch.setattr(sys, "argv", [SNIPPET, "Hello"])
    exec(compile(artefacts(target)[SNIPPET].text, SNIPPET, "exec"), {})
    config, processors = seen
    return config, [type(p).__name__ for p in processors], capsys.readouterr().out


@pytest.mark.parametrize(
    ("params", "acts"),
    [
        (
            SamplingParams(temperature=1.0, top_k=50, max_tokens=4),
            ["TopKLogitsWarper", "MinPLogitsWarper"],
        ),
        (SamplingParams(temperature=1.0, max_tokens=4), ["MinPLogitsWarper"]),
        (SamplingParams(temperature=0, max_tokens=4), []),
        (
            SamplingParams(
                temperature=0.5, top_p=0.9, min_p=0.1, repetition_penalty=1.2, max_tokens=4
            ),
            [
                "RepetitionPenaltyLogitsProcessor",
                "TemperatureLogitsWarper",
                "TopPLogitsWarper",
                "MinPLogitsWarper",
            ],
        ),
    ],
)
@pytest.mark.filterwarnings("ignore")  # transformers' own
def test_the_checkpoint_changes_no_setting(params, acts, opinionated, monkeypatch, capsys):
    """What a checkpoint brings along does not act, not even where a setting equals transformers' default."""
    config, processors, _ = ran(Target(params, str(opinionated)), monkeypatch, capsys)
    wanted = generation_config(params)
    kept = {name: getattr(config, name) for name in wanted if wanted[name] is not None}
    assert kept == {name: value for name, value in wanted.items() if value is not None}
    assert processors == acts  # a min_p of 0 acts and does nothing
    assert not config.no_repeat_ngram_size
    assert config.eos_token_id in (1, [1])


@pytest.mark.filterwarnings("ignore")  # transformers' own
def test_the_stop_text_is_cut_off(opinionated, monkeypatch, capsys):
    """The snippet prints what comes before a stop text, as a run records it."""
    plain = SamplingParams(temperature=0, max_tokens=24)
    _, _, whole = ran(Target(plain, str(opinionated)), monkeypatch, capsys)
    monkeypatch.undo()
    stop = whole.strip()[2:4]
    cut = SamplingParams(temperature=0, max_tokens=24, stop=(stop,))
    _, _, text = ran(Target(cut, str(opinionated)), monkeypatch, capsys)
    assert len(stop) == 2
    assert text.rstrip("\n") == whole.rstrip("\n").split(stop)[0]


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
