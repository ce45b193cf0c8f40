"""adapter_config.json: kinds that do not run here by name, fields that may be anything, and numbers that must be right."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from loras import change_config, write_adapter

from workbench.adapters import read
from workbench.adapters.configs import ALLOWED, KINDS, NESTED, PLAIN
from workbench.errors import AdapterError

if TYPE_CHECKING:
    from pathlib import Path

Q = "model.layers.0.self_attn.q_proj"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A sound adapter of one module, rank 2."""
    return write_adapter(tmp_path, modules={Q: (6, 8)}, r=2)


def refusal(folder: Path, **fields: Any) -> str:
    """What reading says of a changed configuration, the file's name left out."""
    with pytest.raises(AdapterError) as caught:
        read(change_config(folder, **fields))
    message = str(caught.value)
    assert message.startswith(f"{folder / 'adapter_config.json'}: ")
    return message.removeprefix(f"{folder / 'adapter_config.json'}: ")


def other_kind(text: str) -> str:
    """The whole message for another kind of adapter."""
    return f"does not run here: {text}; {ALLOWED}"


def test_what_is_allowed_is_said() -> None:
    """The words that every refusal ends with."""
    assert ALLOWED == (
        "allowed: LoRA with A and B on linear layers (rsLoRA, rank_pattern and alpha_pattern too)"
    )


@pytest.mark.parametrize("kind", ["ADALORA", "IA3", "LOHA", "PROMPT_TUNING", "lora", "", 3])
def test_other_peft_types(folder: Path, kind: object) -> None:
    """Anything but a LoRA is refused by its type."""
    assert refusal(folder, peft_type=kind) == other_kind(f"peft_type {kind!r}")


def test_no_peft_type(folder: Path) -> None:
    """A configuration that does not say its type is refused."""
    assert refusal(folder, peft_type=None) == other_kind("peft_type is missing")


VALUES: dict[str, tuple[Any, str]] = {
    "use_dora": (True, "DoRA (use_dora)"),
    "use_qalora": (True, "QA-LoRA (use_qalora)"),
    "use_bdlora": ({"nblocks": 2}, "block-diagonal LoRA (use_bdlora)"),
    "alora_invocation_tokens": ([5, 6], "activated LoRA (alora_invocation_tokens)"),
    "arrow_config": ({"top_k": 3}, "Arrow routing (arrow_config)"),
    "kasa_config": ({"beta": 0.1}, "KaSA (kasa_config)"),
    "monteclora_config": ({"num_samples": 8}, "MonteCLoRA (monteclora_config)"),
    "velora_config": ({"num_groups": 64}, "VeLoRA (velora_config)"),
    "layer_replication": ([[0, 2], [1, 3]], "replicated layers (layer_replication)"),
    "target_parameters": (
        ["experts.gate_up_proj"],
        "LoRA on bare parameters (target_parameters: experts.gate_up_proj)",
    ),
    "trainable_token_indices": ([1], "trained token embeddings (trainable_token_indices)"),
    "modules_to_save": (
        ["lm_head", "embed_tokens"],
        "whole modules trained along (modules_to_save: lm_head, embed_tokens)",
    ),
    "lora_bias": (True, "a bias on B (lora_bias)"),
    "megatron_config": ({"x": 1}, "Megatron's layers (megatron_config)"),
    "fan_in_fan_out": (True, "transposed weights (fan_in_fan_out)"),
}


@pytest.mark.parametrize("field", KINDS)
def test_other_kinds_by_name(folder: Path, field: str) -> None:
    """Each field that makes an adapter compute something else is refused by name."""
    value, said = VALUES[field]
    assert refusal(folder, **{field: value}) == other_kind(said)


@pytest.mark.parametrize("off", [None, False, [], ""])
@pytest.mark.parametrize("field", KINDS)
def test_a_field_that_is_off(folder: Path, field: str, off: object) -> None:
    """The same fields, off, are no other kind."""
    assert read(change_config(folder, **{field: off})).rank == 2


@pytest.mark.parametrize("field", KINDS)
def test_an_empty_set_of_fields(folder: Path, field: str) -> None:
    """An empty set turns on what is configured by a set of fields, with its defaults, and nothing else."""
    if field in NESTED:
        said = VALUES[field][1]
        assert refusal(folder, **{field: {}}) == other_kind(said)
    else:
        assert read(change_config(folder, **{field: {}})).rank == 2


@pytest.mark.parametrize("bias", ["all", "lora_only", True])
def test_biases(folder: Path, bias: object) -> None:
    """Biases trained along are refused."""
    assert refusal(folder, bias=bias) == other_kind(f"biases trained along (bias is {bias!r})")


@pytest.mark.parametrize(
    ("start", "name"),
    [
        ("pissa", "PiSSA"),
        ("pissa_niter_16", "PiSSA"),
        ("olora", "OLoRA"),
        ("OLoRA", "OLoRA"),
        ("corda", "CorDA"),
        ("lora_ga", "LoRA-GA"),
    ],
)
def test_starts_that_alter_the_base(folder: Path, start: str, name: str) -> None:
    """Such an adapter fits only the altered base; the message says how to save it so that it fits the base as it is."""
    said = other_kind(f"{name} (init_lora_weights is {start!r})")
    assert refusal(folder, init_lora_weights=start) == (
        f"{said}. {name} alters the base, and this file fits only the altered base; save it with "
        "save_pretrained(path_initial_model_for_weight_conversion=the adapter before training), which writes a plain "
        "LoRA of twice the rank"
    )


def test_loftq(folder: Path) -> None:
    """LoftQ has its own advice: there is no conversion."""
    said = other_kind("LoftQ (init_lora_weights is 'loftq')")
    assert refusal(folder, init_lora_weights="loftq") == (
        f"{said}. LoftQ alters the base, and this file fits only the altered base; train with init_lora_weights=True "
        "on the base you will run"
    )


@pytest.mark.parametrize("start", ["new_start", 7, {"a": 1}])
def test_unknown_starts(folder: Path, start: object) -> None:
    """A start that is not known may alter the base."""
    said = f"an unknown start (init_lora_weights is {start!r})"
    assert refusal(folder, init_lora_weights=start) == other_kind(said)


@pytest.mark.parametrize("start", [True, False, None, "gaussian", "eva", "orthogonal", "mica"])
def test_starts_that_leave_the_base(folder: Path, start: object) -> None:
    """How A and B were started does not matter where the base was left alone."""
    assert read(change_config(folder, init_lora_weights=start)).rank == 2


def test_unknown_fields(folder: Path) -> None:
    """A field that is not known and set may change what is computed; unset it does not matter."""
    assert refusal(folder, use_newlora=True, zeta=0.5) == other_kind(
        "the unknown field 'use_newlora' (made by a newer PEFT?), the unknown field 'zeta' (made by a newer PEFT?)"
    )
    off = {"use_newlora": False, "zeta": None, "eta": 0, "theta": {}, "iota": []}
    assert read(change_config(folder, **off)).rank == 2


def test_several_kinds_at_once(folder: Path) -> None:
    """All that stands in the way is said at once."""
    assert refusal(folder, bias="all", use_dora=True, modules_to_save=["a"], new=1) == other_kind(
        "DoRA (use_dora), whole modules trained along (modules_to_save: a), biases trained along (bias is 'all'), the "
        "unknown field 'new' (made by a newer PEFT?)"
    )


ANY = sorted(
    PLAIN
    - {"r", "lora_alpha", "rank_pattern", "alpha_pattern", "use_rslora"}
    - {"peft_type", "bias", "init_lora_weights"}
    - {"target_modules", "exclude_modules", "layers_pattern", "layers_to_transform"}
)


@pytest.mark.parametrize("field", ANY)
@pytest.mark.parametrize("value", [None, True, "text", 3, ["a"], {"a": 1}])
def test_fields_that_may_be_anything(folder: Path, field: str, value: object) -> None:
    """Fields that do not change what A and B compute have any value, with the same identity."""
    before = read(folder).sha256
    assert read(change_config(folder, **{field: value})).sha256 == before


WHOLE = "a whole number, 1 or more"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"r": 0}, f"r must be {WHOLE}, got 0"),
        ({"r": -2}, f"r must be {WHOLE}, got -2"),
        ({"r": 2.0}, f"r must be {WHOLE}, got 2.0"),
        ({"r": True}, f"r must be {WHOLE}, got True"),
        ({"r": None}, f"r must be {WHOLE}, got None"),
        ({"r": "2"}, f"r must be {WHOLE}, got '2'"),
        ({"lora_alpha": None}, "lora_alpha must be a number, got None"),
        ({"lora_alpha": True}, "lora_alpha must be a number, got True"),
        ({"lora_alpha": "16"}, "lora_alpha must be a number, got '16'"),
        ({"lora_alpha": float("nan")}, "lora_alpha must be a number, got nan"),
        ({"lora_alpha": float("inf")}, "lora_alpha must be a number, got inf"),
        ({"rank_pattern": ["q"]}, "rank_pattern must be a set of fields, got ['q']"),
        ({"rank_pattern": {"q": 0}}, f"rank_pattern of 'q' must be {WHOLE}, got 0"),
        ({"alpha_pattern": 3}, "alpha_pattern must be a set of fields, got 3"),
        (
            {"alpha_pattern": {"q": "a", "v": None}},
            "alpha_pattern of 'q' must be a number, got 'a'; alpha_pattern of 'v' must be a number, got None",
        ),
        ({"use_rslora": 1}, "use_rslora must be true or false, got 1"),
        (
            {"r": 0, "lora_alpha": "x"},
            f"r must be {WHOLE}, got 0; lora_alpha must be a number, got 'x'",
        ),
        (
            {"alpha_pattern": {"(q": 3}},
            "the pattern '(q' cannot be used (missing ) at position 12)",
        ),
    ],
)
def test_numbers_that_are_wrong(folder: Path, fields: dict[str, Any], message: str) -> None:
    """Rank, alpha and their patterns are checked one by one, every problem at once."""
    assert refusal(folder, **fields) == message


def test_a_number_too_large_for_any_float(folder: Path) -> None:
    """An alpha beyond all floats is refused, not an overflow."""
    huge = 10**400
    assert refusal(folder, lora_alpha=huge) == f"lora_alpha must be a number, got {huge}"


def test_missing_rank_and_alpha(folder: Path) -> None:
    """Without r or lora_alpha there is no scale to be had: neither is guessed."""
    (folder / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    assert refusal(folder) == "has no r; has no lora_alpha"


@pytest.mark.parametrize("alpha", [0, -4, 0.5, 1e-3])
def test_odd_alphas_are_allowed(folder: Path, alpha: float) -> None:
    """An alpha of 0 or below is a scale too; whether the adapter does anything is for the engine to find."""
    assert read(change_config(folder, lora_alpha=alpha)).scales == {Q: alpha / 2}


def test_a_pattern_without_end(tmp_path: Path) -> None:
    """An expression that would take hours against a long name is stopped and named."""
    name = f"model.{'a' * 60}.q_proj"
    folder = write_adapter(tmp_path, modules={name: (2, 2)}, r=2)
    pattern = "(a|a|aa)+$"
    assert refusal(folder, alpha_pattern={f"({pattern})": 3}) == (
        f"the pattern '({pattern})' cannot be used (regex timed out)"
    )


@pytest.mark.parametrize("field", ["target_modules", "exclude_modules"])
def test_expressions_that_cannot_be_used(folder: Path, field: str) -> None:
    """An expression that is none is told with its fault before PEFT sees it."""
    assert refusal(folder, **{field: "(q_proj"}) == (
        "the pattern '(q_proj' cannot be used (missing ) at position 7)"
    )


NAMES = "a text or a list of texts"
PLAIN_NAMES = "a name such as 'layers', or a list of these"
NUMBERS = "a whole number, 0 or more, or a list of these"


@pytest.mark.parametrize(
    ("field", "value", "allowed"),
    [
        ("target_modules", [1, 2], NAMES),
        ("target_modules", 7, NAMES),
        ("target_modules", ["q_proj", None], NAMES),
        ("exclude_modules", {"a": 1}, NAMES),
        ("layers_pattern", "(", PLAIN_NAMES),
        ("layers_pattern", ["layers", "(h"], PLAIN_NAMES),
        ("layers_pattern", 3, PLAIN_NAMES),
        ("layers_to_transform", "1", NUMBERS),
        ("layers_to_transform", [0, -1], NUMBERS),
        ("layers_to_transform", True, NUMBERS),
    ],
)
def test_fields_that_name_layers(folder: Path, field: str, value: object, allowed: str) -> None:
    """What says which layers change must be of the kind that PEFT reads."""
    target = {"target_modules": ["q_proj"]}
    said = refusal(folder, **target | {field: value})
    assert said == f"{field} must be {allowed}, got {value!r}"


def test_layers_go_with_a_list(folder: Path) -> None:
    """PEFT takes numbers of layers for a list of modules only."""
    assert refusal(folder, target_modules=".*q_proj", layers_to_transform=[0]) == (
        "layers_to_transform goes with a list of target_modules, not with an expression"
    )


@pytest.mark.parametrize(
    "fields",
    [
        {"target_modules": "all-linear"},
        {"target_modules": None, "exclude_modules": None},
        {"exclude_modules": ["lm_head"]},
        {"layers_to_transform": 0, "layers_pattern": "model.layers"},
        {"layers_to_transform": [0, 5], "layers_pattern": ["layers", "h"]},
        {"layers_to_transform": [], "layers_pattern": []},
    ],
)
def test_fields_that_name_layers_well(folder: Path, fields: dict[str, Any]) -> None:
    """Every form that PEFT writes is taken."""
    assert read(change_config(folder, **fields)).rank == 2
