"""An adapter for use elsewhere: the folder written, and what would be refused there."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from loras import ab, change_config, modules_of, write_adapter, write_tensors
from safetensors import safe_open

from workbench.adapters import AdapterFile, elsewhere, export, hosted_limits, read
from workbench.errors import AdapterError
from workbench.training.overlap import FORMAT, RECORD, trained_on

if TYPE_CHECKING:
    from pathlib import Path

Q, V = "model.layers.0.self_attn.q_proj", "model.layers.0.self_attn.v_proj"
NAMES = ["adapter_config.json", "adapter_model.safetensors"]


def make(folder: Path, **options: Any) -> AdapterFile:
    """An adapter that nobody would refuse, read."""
    fields = {"model_type": "llama"} | options.pop("config", {})
    options = {"modules": {Q: (6, 8), V: (6, 4)}, "r": 2, "config": fields} | options
    return read(write_adapter(folder, **options))


def bytes_of(folder: Path) -> dict[str, bytes]:
    """Every file of a folder."""
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def test_an_export(tmp_path: Path) -> None:
    """Exactly two files, the weights byte for byte, the configuration with the same fields and the one added."""
    file = make(tmp_path / "a", config={"model_type": None})
    out = export(file, tmp_path / "new" / "out", model_type="mistral")
    assert out == tmp_path / "new" / "out"
    assert sorted(bytes_of(out)) == NAMES
    assert bytes_of(out)[NAMES[1]] == bytes_of(file.path)[NAMES[1]]
    assert json.loads(bytes_of(out)[NAMES[0]]) == file.config | {"model_type": "mistral"}
    assert read(out).sha256 == file.sha256


def test_without_a_model_type_the_fields_stay(tmp_path: Path) -> None:
    """Nothing is added unasked, and what the adapter says stays."""
    file = make(tmp_path / "a", config={"model_type": "gemma"})
    assert read(export(file, tmp_path / "out")).config == file.config


def test_the_order_of_patterns_is_kept(tmp_path: Path) -> None:
    """Of patterns that overlap the first counts, so an export does not sort them."""
    patterns = {"v_proj": 3, "q_proj": 5, r".*\.v_proj": 7}
    file = make(tmp_path / "a", config={"alpha_pattern": patterns})
    assert read(export(file, tmp_path / "out")).alphas == file.alphas == {Q: 5, V: 3}


def test_exporting_twice(tmp_path: Path) -> None:
    """The same export again changes nothing; other files in the folder are left alone."""
    file = make(tmp_path / "a")
    out = export(file, tmp_path / "out")
    (out / "README.md").write_text("mine")
    before = bytes_of(out)
    export(file, out)
    assert bytes_of(out) == before


@pytest.mark.parametrize("name", NAMES)
def test_a_different_file_is_never_overwritten(tmp_path: Path, name: str) -> None:
    """A file of that name with other content is refused, and nothing at all is written."""
    file = make(tmp_path / "a")
    out = export(file, tmp_path / "out")
    (out / name).write_bytes(b"other")
    before = bytes_of(out)
    with pytest.raises(AdapterError) as caught:
        export(file, out)
    assert str(caught.value) == f"{out / name}: there already, and not the same; not written"
    assert bytes_of(out) == before


def test_onto_itself(tmp_path: Path) -> None:
    """An adapter is not changed in place."""
    file = make(tmp_path / "a")
    before = bytes_of(file.path)
    with pytest.raises(AdapterError, match="there already, and not the same; not written"):
        export(file, file.path, model_type="mistral")
    assert bytes_of(file.path) == before


def test_an_adapter_that_has_changed(tmp_path: Path) -> None:
    """What was read is what is exported: a file changed since is refused."""
    file = make(tmp_path / "a")
    change_config(file.path, lora_alpha=99)
    with pytest.raises(AdapterError) as caught:
        export(file, tmp_path / "out")
    assert str(caught.value) == f"{file.path}: has changed since it was read; read it again"
    assert not (tmp_path / "out").exists()


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    """A file where the folder should be is one clear error."""
    file = make(tmp_path / "a")
    (tmp_path / "out").write_text("a file")
    with pytest.raises(AdapterError) as caught:
        export(file, tmp_path / "out")
    assert str(caught.value).startswith(f"{tmp_path / 'out'}: cannot be written (")


def test_nothing_half_written_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the disk fills up while writing, no part of a file stays."""
    from pathlib import Path as PathType

    file = make(tmp_path / "a")

    def full(self: Path, content: bytes) -> int:
        with self.open("wb") as opened:
            opened.write(content[:5])
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(PathType, "write_bytes", full)
        with pytest.raises(AdapterError) as caught:
            export(file, tmp_path / "out")
    assert str(caught.value) == (
        f"{tmp_path / 'out'}: cannot be written ([Errno 28] No space left on device)"
    )
    assert list((tmp_path / "out").iterdir()) == []


def test_the_record_of_the_training_goes_along(tmp_path: Path) -> None:
    """What tells what an adapter was trained on, and its card, are in the export byte for byte; other files are not."""
    file = make(tmp_path / "a")
    record = {"format": FORMAT, "prompt_hashes": [], "adapter": {"sha256": file.sha256}}
    (file.path / RECORD).write_text(json.dumps(record))
    (file.path / "README.md").write_text("# A card\n")
    (file.path / "losses.csv").write_text("step\n")
    out = export(file, tmp_path / "out", base="org/base", model_type="gemma")
    assert sorted(bytes_of(out)) == ["README.md", *NAMES, RECORD]
    for name in (RECORD, "README.md"):
        assert bytes_of(out)[name] == bytes_of(file.path)[name]
    assert trained_on(out, read(out).sha256, []) == []


def test_another_base(tmp_path: Path) -> None:
    """The base that the configuration names can be set, and nothing else changes."""
    file = make(tmp_path / "a", config={"base_model_name_or_path": "/home/me/model"})
    out = read(export(file, tmp_path / "out", base="org/base"))
    assert out.config == file.config | {"base_model_name_or_path": "org/base"}
    assert out.sha256 == file.sha256
    assert read(export(file, tmp_path / "same")).base == "/home/me/model"


def test_weights_that_change_while_they_are_exported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is written is what was identified, also if the file is replaced after it was looked at."""
    file = make(tmp_path / "a")
    other = make(tmp_path / "b", seed=1)

    def then_replaced(path: Path) -> AdapterFile:
        found = read(path)
        (path / NAMES[1]).write_bytes(bytes_of(other.path)[NAMES[1]])
        return found

    monkeypatch.setattr(elsewhere, "read", then_replaced)
    with pytest.raises(AdapterError) as caught:
        export(file, tmp_path / "out")
    assert str(caught.value) == f"{file.path}: has changed since it was read; read it again"
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "key", ["{module}.lora_{part}.weight", "base_model.model.{module}.lora_{part}.x.weight"]
)
@pytest.mark.parametrize("dtype", ["F32", "BF16"])
def test_keys_become_those_of_peft(tmp_path: Path, key: str, dtype: str) -> None:
    """Other spellings of the keys are renamed in the header, the numbers after it untouched and aligned."""
    file = make(tmp_path / "a", key=key, dtype=dtype)
    out = export(file, tmp_path / "out")
    assert read(out).sha256 == file.sha256
    with safe_open(out / NAMES[1], framework="numpy") as opened:
        assert sorted(opened.keys()) == sorted(ab({Q: (6, 8), V: (6, 4)}, 2))
        assert opened.metadata() == {"format": "pt"}
    content = bytes_of(out)[NAMES[1]]
    assert (8 + int.from_bytes(content[:8], "little")) % 8 == 0
    assert content.endswith(bytes_of(file.path)[NAMES[1]][-file.n_parameters * 2 :])


# ------------------------------------------------------------------------------------------- limits


def test_nothing_to_say(tmp_path: Path) -> None:
    """A small plain adapter of a model type that is taken meets no limit."""
    assert hosted_limits(make(tmp_path)) == ()
    assert hosted_limits(make(tmp_path), name="my-lora") == ()


@pytest.mark.parametrize(
    ("rank", "said"),
    [
        (8, ()),
        (
            9,
            ("Workers AI takes rank 9 for some models only; to 8 for every model with LoRA.",),
        ),
        (
            16,
            ("Workers AI takes rank 16 for some models only; to 8 for every model with LoRA.",),
        ),
        (
            17,
            (
                "Workers AI takes rank 17 for some models only; to 8 for every model with LoRA.",
                "vLLM takes ranks to 16 unless started with --max-lora-rank 32; this is 17.",
            ),
        ),
        (
            33,
            (
                "Workers AI takes ranks to 32, and this is 33.",
                "vLLM takes ranks to 16 unless started with --max-lora-rank 64; this is 33.",
            ),
        ),
        (
            512,
            (
                "Workers AI takes ranks to 32, and this is 512.",
                "vLLM takes ranks to 16 unless started with --max-lora-rank 512; this is 512.",
            ),
        ),
        (
            513,
            (
                "Workers AI takes ranks to 32, and this is 513.",
                "vLLM takes ranks to 512, and this is 513.",
            ),
        ),
    ],
)
def test_ranks(tmp_path: Path, rank: int, said: tuple[str, ...]) -> None:
    """Each rank meets the limits it is above, and names the setting that lifts vLLM's."""
    assert hosted_limits(make(tmp_path, r=rank)) == said


@given(rank=st.integers(17, 512))
def test_the_named_setting_is_the_least_that_fits(
    tmp_path_factory: pytest.TempPathFactory, rank: int
) -> None:
    """The --max-lora-rank named is one that vLLM allows, large enough, and the next smaller is not."""
    file = make(tmp_path_factory.getbasetemp() / "rank", modules={Q: (2, 2)}, r=rank)
    (sentence,) = (s for s in hosted_limits(file) if s.startswith("vLLM"))
    named = int(sentence.split("--max-lora-rank ")[1].split(";")[0])
    assert named >= rank
    assert named in elsewhere.VLLM_RANKS
    assert all(smaller < rank for smaller in elsewhere.VLLM_RANKS if smaller < named)


def test_model_types(tmp_path: Path) -> None:
    """The hosted service wants one of three model types."""
    head = "Workers AI wants model_type mistral, gemma or llama in adapter_config.json, which"
    assert hosted_limits(make(tmp_path, config={"model_type": None})) == (f"{head} has none.",)
    said = hosted_limits(make(tmp_path, config={"model_type": "qwen2"}))
    assert said == (f"{head} says 'qwen2'.",)


def test_size(tmp_path: Path) -> None:
    """A file of 300 MB or more is too large."""
    file = make(tmp_path)
    assert hosted_limits(replace(file, n_bytes=299_999_999)) == ()
    assert hosted_limits(replace(file, n_bytes=300_000_000)) == (
        "Workers AI takes files below 300 MB, and adapter_model.safetensors has 300 MB.",
    )


@pytest.mark.parametrize(
    ("base", "quantized"),
    [
        ("Qwen/Qwen1.5-7B-Chat-AWQ", True),
        ("@cf/qwen/qwen1.5-7b-chat-awq", True),
        ("x/model-GPTQ-Int4", True),
        ("unsloth/llama-3-8b-bnb-4bit", True),
        ("mistralai/Mistral-7B-Instruct-v0.2", False),
        ("org/awqward-model", False),
        (None, False),
    ],
)
def test_quantized_bases(tmp_path: Path, base: str | None, quantized: bool) -> None:
    """An adapter that records a quantized base is told that the hosted bases are not."""
    said = hosted_limits(make(tmp_path, config={"base_model_name_or_path": base}))
    sentence = (
        f"Workers AI takes adapters of bases that are not quantized, and this records {base}."
    )
    assert said == ((sentence,) if quantized else ())


@pytest.mark.parametrize(
    ("base", "local"),
    [
        ("/home/me/models/qwen", True),
        ("./qwen", True),
        ("~/qwen", True),
        ("C:\\models\\qwen", True),
        ("models/qwen/v1", True),
        ("demo", True),
        ("org/base", False),
        ("gpt2", False),
        (None, False),
    ],
)
def test_bases_of_this_machine(tmp_path: Path, base: str | None, *, local: bool) -> None:
    """A base that is a path here is said, with what to do about it."""
    said = hosted_limits(make(tmp_path, config={"base_model_name_or_path": base}))
    sentence = (
        f"PEFT loads the base that adapter_config.json names, and {base} is known on this machine only; write the base's id "
        "on the hub with --base."
    )
    assert said == ((sentence,) if local else ())


def test_names_kept_by_the_service(tmp_path: Path) -> None:
    """Names that the hosted service keeps for itself are said, where a name is asked about."""
    assert hosted_limits(make(tmp_path), name="cf-public-mine") == (
        "Workers AI keeps names that begin with cf-public- for itself, and this is cf-public-mine.",
    )


def test_patterns_are_not_read_by_vllm(tmp_path: Path) -> None:
    """Scales that differ from lora_alpha and r would be wrong in vLLM; patterns that give the same scale would not."""
    said = (
        "vLLM scales every module by lora_alpha and r alone, not by rank_pattern and alpha_pattern: 1 of 2 modules "
        "would have the wrong scale."
    )
    assert hosted_limits(make(tmp_path, config={"alpha_pattern": {"v_proj": 3}})) == (said,)
    assert hosted_limits(make(tmp_path, ranks={V: 4})) == (said,)
    even = make(tmp_path, ranks={V: 4}, config={"alpha_pattern": {"v_proj": 32}})
    assert hosted_limits(even) == ()


def test_modules_that_vllm_may_not_know(tmp_path: Path) -> None:
    """Modules with other names than vLLM's are listed; those of Llama and Qwen2 are all known."""
    shape = {
        "hidden_size": 8,
        "intermediate_size": 12,
        "num_attention_heads": 2,
        "num_hidden_layers": 1,
    }
    names = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
    known = modules_of(shape, names) | {"lm_head": (8, 20)}
    assert hosted_limits(make(tmp_path / "a", modules=known)) == ()
    strange = known | {"model.layers.0.mixer.in_proj": (8, 8), "model.score": (8, 2)}
    assert hosted_limits(make(tmp_path / "b", modules=strange)) == (
        "vLLM may not know the modules in_proj, score: it depends on the model.",
    )


def test_the_weights_are_not_read_for_limits(tmp_path: Path) -> None:
    """The limits are those of the file as it was read: nothing on disk is needed any more."""
    file = make(tmp_path / "a")
    write_tensors(file.path / NAMES[1], {})
    assert hosted_limits(file) == ()
