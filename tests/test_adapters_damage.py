"""Damaged adapters: every damage of either file is one clear error that says where it is."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from loras import PREFIX, ab, change_config, write_adapter, write_raw, write_tensors

from workbench.adapters import AdapterFile, describe, read, weights
from workbench.errors import AdapterError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

Q, V = "model.layers.0.self_attn.q_proj", "model.layers.0.self_attn.v_proj"
MODULES = {V: (6, 4), Q: (6, 8)}
ALLOWED = "allowed: LoRA with A and B on linear layers (rsLoRA, rank_pattern and alpha_pattern too)"
FIELDS = (
    *("r", "lora_alpha", "rank_pattern", "alpha_pattern", "use_rslora", "bias", "peft_type"),
    *("init_lora_weights", "modules_to_save", "target_modules", "kasa_config", "new"),
    "base_model_name_or_path",
)
SMALL = settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def make(folder: Path, **options: Any) -> Path:
    """An adapter of two modules, rank 2, alpha 16."""
    return write_adapter(folder, **({"modules": MODULES, "r": 2} | options))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A sound adapter."""
    return make(tmp_path / "sound")


def weights_of(folder: Path) -> Path:
    """Its weight file."""
    return folder / "adapter_model.safetensors"


def refusal(path: str | Path) -> str:
    """The message of the error that reading raises."""
    with pytest.raises(AdapterError) as caught:
        read(path)
    assert type(caught.value) is AdapterError
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not readable as JSON (Expecting value: line 1 column 1 (char 0))"),
        ('{"r":', "not readable as JSON (Expecting value: line 1 column 6 (char 5))"),
        ("[8]", "not a set of fields"),
        ("8", "not a set of fields"),
        ("{}", f"does not run here: peft_type is missing; {ALLOWED}"),
    ],
)
def test_a_damaged_config(folder: Path, text: str, message: str) -> None:
    """A configuration that cannot be read is named, with the place."""
    file = folder / "adapter_config.json"
    file.write_text(text)
    assert refusal(folder) == f"{file}: {message}"


def test_a_config_that_is_no_text(folder: Path) -> None:
    """Bytes that are no UTF-8, and JSON deeper than any reader goes, are one clear error too."""
    file = folder / "adapter_config.json"
    file.write_bytes(b"\xff{}")
    assert refusal(folder).startswith(f"{file}: not readable as JSON ('utf-8' codec can't decode")
    file.write_text("[" * 100_000)
    assert refusal(folder).startswith(f"{file}: not readable as JSON (maximum recursion depth")


def damage(cut: Callable[[bytes], bytes]) -> Callable[[Path], object]:
    """Change a weight file's bytes."""
    return lambda file: file.write_bytes(cut(file.read_bytes()))


def lie(key: str, **changes: Any) -> Callable[[Path], object]:
    """Change what the header says of one tensor."""

    def change(file: Path) -> None:
        content = file.read_bytes()
        start = 8 + int.from_bytes(content[:8], "little")
        header = json.loads(content[8:start])
        header[PREFIX + key] |= changes
        write_raw(file, header, content[start:])

    return change


def twice(file: Path) -> None:
    """Two entries for one tensor."""
    content = file.read_bytes()
    start = 8 + int.from_bytes(content[:8], "little")
    text = content[8:start].rstrip()
    entry = (
        json.dumps(PREFIX + f"{Q}.lora_A.weight")
        + ":"
        + json.dumps(json.loads(text)[PREFIX + f"{Q}.lora_A.weight"])
    )
    text = text[:-1] + b"," + entry.encode() + b"}"
    file.write_bytes(len(text).to_bytes(8, "little") + text + content[start:])


HEADER = "Error while deserializing header: "


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (damage(lambda b: b[:0]), f"{HEADER}header too small"),
        (damage(lambda b: b[:7]), f"{HEADER}header too small"),
        (damage(lambda b: b[:20]), f"{HEADER}invalid header length"),
        (damage(lambda b: b[:-1]), f"{HEADER}incomplete metadata, file not fully covered"),
        (damage(lambda b: b + b"x"), f"{HEADER}incomplete metadata, file not fully covered"),
        (damage(lambda b: b"\xff" * 8 + b[8:]), f"{HEADER}header too large"),
        (
            lie(f"{Q}.lora_A.weight", shape=[3, 6]),
            f"{HEADER}invalid shape, data type, or offset for tensor",
        ),
        (
            lie(f"{Q}.lora_A.weight", dtype="F64"),
            f"{HEADER}invalid shape, data type, or offset for tensor",
        ),
        (
            lie(f"{Q}.lora_A.weight", data_offsets=[0, 48]),
            f"{HEADER}invalid offset for tensor `{PREFIX}model.layers.0.self_attn.",  # of two, either
        ),
        (
            twice,
            "a name twice among __metadata__, "
            + ", ".join(f"{PREFIX}{m}.lora_{p}.weight" for m in (V, Q) for p in "AB"),
        ),
    ],
)
def test_damaged_weights(folder: Path, change: Callable[[Path], object], reason: str) -> None:
    """Truncated, scrambled, empty or overlong files, and headers that lie, are refused before they are used."""
    file = weights_of(folder)
    change(file)
    said = refusal(folder)
    assert said.startswith(f"{file}: truncated or damaged ({reason}")
    assert said.endswith("); copy or download it again")


def test_a_file_that_shrinks_while_it_is_read(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file cut off between the look at its header and the reading of its numbers is found out."""
    found = weights.tensors

    def shrink(file: Path) -> list[weights.Tensor]:
        tensors = found(file)
        file.write_bytes(file.read_bytes()[:-3])
        return tensors

    monkeypatch.setattr(weights, "tensors", shrink)
    file = weights_of(folder)
    assert refusal(folder) == (
        f"{file}: truncated or damaged ({PREFIX}{Q}.lora_B.weight ends early); copy or download it again"
    )
    monkeypatch.setattr(weights, "tensors", lambda file: (found(file), file.unlink())[0])
    make(folder)
    assert refusal(folder) == (
        f"{file}: truncated or damaged ([Errno 2] No such file or directory: '{file}'); copy or download it again"
    )


@pytest.mark.parametrize("dtype", ["F32", "F16", "BF16"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_numbers_that_are_not_finite(folder: Path, dtype: str, value: float) -> None:
    """Numbers that are inf or nan are counted by tensor, in every type."""
    make(folder, dtype=dtype)
    tensors = ab(MODULES, 2)
    tensors[f"{PREFIX}{Q}.lora_B.weight"][3:5, 1] = value
    tensors[f"{PREFIX}{V}.lora_A.weight"][0, 0] = value
    file = write_tensors(weights_of(folder), tensors, dtype)
    assert refusal(folder) == (
        f"{file}: numbers that are inf or nan: 2 in lora_B of {Q}, 1 in lora_A of {V}"
    )


@pytest.mark.parametrize("dtype", ["F32", "F16", "BF16"])
def test_large_numbers_are_finite(folder: Path, dtype: str) -> None:
    """The largest and the smallest numbers a type has are no inf."""
    most = {"F32": np.finfo("f4").max, "F16": np.finfo("f2").max, "BF16": 3.38e38}[dtype]
    tensors = ab(MODULES, 2)
    tensors[f"{PREFIX}{Q}.lora_B.weight"][:3, 0] = [most, -most, 0.0]
    write_tensors(weights_of(folder), tensors, dtype)
    assert read(folder).dtype == dtype


def test_every_part_of_a_large_tensor_is_looked_at(folder: Path) -> None:
    """A tensor read in several pieces has its first, middle and last numbers checked."""
    modules = {Q: (600_000, 2)}  # 4.8 MB of A in F32: two pieces
    make(folder, modules=modules)
    for place in (0, 1 << 20, (1 << 20) - 1, 1_199_999):
        tensors = ab(modules, 2)
        tensors[f"{PREFIX}{Q}.lora_A.weight"].reshape(-1)[place] = np.nan
        file = write_tensors(weights_of(folder), tensors)
        message = f"{file}: numbers that are inf or nan: 1 in lora_A of {Q}"
        assert refusal(folder) == message


def test_a_long_list_is_cut(folder: Path) -> None:
    """Of many bad tensors the first three are named."""
    tensors = {key: values * np.nan for key, values in ab(MODULES, 2).items()}
    file = write_tensors(weights_of(folder), tensors)
    assert refusal(folder) == (
        f"{file}: numbers that are inf or nan: 12 in lora_A of {Q}, 16 in lora_B of {Q}, "
        f"12 in lora_A of {V} and 1 more"
    )


def test_a_half_alone(folder: Path) -> None:
    """A without B, and B without A, are refused with the module."""
    file = weights_of(folder)
    for part, other in ("AB", "BA"):
        tensors = ab(MODULES, 2)
        del tensors[f"{PREFIX}{V}.lora_{other}.weight"]
        write_tensors(file, tensors)
        assert refusal(folder) == f"{file}: lora_{part} without lora_{other}: {V}"


def test_no_tensors(folder: Path) -> None:
    """A file without tensors is no adapter."""
    file = write_tensors(weights_of(folder), {})
    assert refusal(folder) == f"{file}: holds no tensors"


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        (
            f"{Q}.lora_B.weight",
            np.zeros((8, 3), "f4"),
            f"{Q}: lora_A has rank 2 (shape (2, 6)), lora_B rank 3 (shape (8, 3))",
        ),
        (
            f"{Q}.lora_B.weight",
            np.zeros((8, 1), "f4"),
            f"{Q}: lora_A has rank 2 (shape (2, 6)), lora_B rank 1 (shape (8, 1))",
        ),
        (
            f"{Q}.lora_A.weight",
            np.zeros(6, "f4"),
            f"lora_A of {Q} has shape (6,); allowed: (rank, inputs), 1 or more each",
        ),
        (
            f"{Q}.lora_B.weight",
            np.zeros((8, 2, 1, 1), "f4"),
            f"lora_B of {Q} has shape (8, 2, 1, 1); allowed: (outputs, rank), 1 or more each",
        ),
        (
            f"{Q}.lora_A.weight",
            np.zeros((0, 6), "f4"),
            f"lora_A of {Q} has shape (0, 6); allowed: (rank, inputs), 1 or more each",
        ),
    ],
)
def test_shapes_that_are_no_lora(folder: Path, name: str, values: np.ndarray, message: str) -> None:
    """A and B are tables with one rank."""
    file = write_tensors(weights_of(folder), ab(MODULES, 2) | {PREFIX + name: values})
    assert refusal(folder) == f"{file}: {message}"


def test_other_types_of_numbers(folder: Path) -> None:
    """Types that are no floating-point weights of 16 or 32 bits are refused by name."""
    file = write_tensors(weights_of(folder), ab(MODULES, 2), "F64")
    assert refusal(folder) == (
        f"{file}: lora_A of {Q} has numbers of type F64; allowed: F32, F16, BF16"
    )


def test_ranks_that_the_config_does_not_say(folder: Path) -> None:
    """The ranks of r and rank_pattern must be the tensors': alpha is divided by them."""
    file = weights_of(folder)
    head = f"{file}: ranks that r and rank_pattern of adapter_config.json do not say: "
    change_config(folder, r=4)
    assert refusal(folder) == f"{head}{Q} has rank 2, not 4, {V} has rank 2, not 4"
    change_config(folder, r=2, rank_pattern={"v_proj": 3})
    assert refusal(folder) == f"{head}{V} has rank 2, not 3"


@pytest.mark.parametrize("key", ["", "default", "a and b"])
def test_two_adapters_in_one_file(folder: Path, key: str) -> None:
    """A file with several adapters is refused: it is not clear which is meant."""
    name = f".{key}" if key else ""
    more = ab(MODULES, 2, key=PREFIX + "{module}.lora_{part}" + name + ".weight")
    other = ab(MODULES, 2, key=PREFIX + "{module}.lora_{part}.other.weight")
    file = write_tensors(weights_of(folder), more | other)
    first = key or "one without a name"
    shown = ", ".join(sorted([first, "other"]))
    assert refusal(folder) == f"{file}: holds several adapters ({shown}); allowed: one"


def test_two_adapters_for_different_modules(folder: Path) -> None:
    """Two adapters in one file are two, also where they change different modules."""
    one = ab({Q: MODULES[Q]}, 2, key=PREFIX + "{module}.lora_{part}.one.weight")
    two = ab({V: MODULES[V]}, 2, key=PREFIX + "{module}.lora_{part}.two.weight")
    file = write_tensors(weights_of(folder), one | two)
    assert refusal(folder) == f"{file}: holds several adapters (one, two); allowed: one"


def test_a_module_twice(folder: Path) -> None:
    """One module with and without PEFT's prefix is there twice."""
    bare = ab({Q: MODULES[Q]}, 2, key="{module}.lora_{part}.weight")
    file = write_tensors(weights_of(folder), ab(MODULES, 2) | bare)
    message = f"{file}: holds several adapters (one without a name); allowed: one"
    assert refusal(folder) == message


@pytest.mark.parametrize(
    ("names", "kinds"),
    [
        (["model.embed.lora_embedding_A"], "LoRA on embeddings (model.embed.lora_embedding_A)"),
        ([f"{Q}.lora_magnitude_vector"], f"DoRA's magnitudes ({Q}.lora_magnitude_vector)"),
        ([f"{Q}.lora_B.bias"], f"biases of A or B ({Q}.lora_B.bias)"),
        ([f"{Q}.lora_B.default.bias"], f"biases of A or B ({Q}.lora_B.default.bias)"),
        ([f"{Q}.bias"], f"biases of the base ({Q}.bias)"),
        (
            ["model.embed.token_adapter.trainable_tokens_delta"],
            "trained token embeddings (model.embed.token_adapter.trainable_tokens_delta)",
        ),
        ([f"{Q}.lora_diag"], f"parts of another kind of LoRA ({Q}.lora_diag)"),
        (
            ["x", "lora_A.weight"],
            "parts of another kind of LoRA (lora_A.weight); unknown tensors (x)",
        ),
        (
            ["a.scale", "b.scale", "c.scale", "d.scale", f"{Q}.bias"],
            f"unknown tensors (a.scale, b.scale, c.scale and 1 more); biases of the base ({Q}.bias)",
        ),
    ],
)
def test_tensors_that_are_neither_a_nor_b(folder: Path, names: list[str], kinds: str) -> None:
    """What else is in a file is listed by kind."""
    others = {PREFIX + name: np.zeros(2, "f4") for name in names}
    file = write_tensors(weights_of(folder), ab(MODULES, 2) | others)
    assert refusal(folder) == f"{file}: holds more than A and B: {kinds}; {ALLOWED}"


def attempt(folder: Path) -> AdapterFile | None:
    """Read, or None if it is refused; any other error fails the test."""
    try:
        return read(folder)
    except AdapterError as error:
        assert str(folder) in str(error)  # noqa: PT017
        return None


@given(place=st.integers(0), value=st.binary(min_size=1, max_size=4))
@SMALL
def test_any_damaged_byte(
    tmp_path_factory: pytest.TempPathFactory, place: int, value: bytes
) -> None:
    """Whatever bytes of a small weight file are overwritten: an error that names it, or an adapter that may differ."""
    folder = make(tmp_path_factory.getbasetemp() / "bytes")
    file = weights_of(folder)
    content = file.read_bytes()
    place %= len(content)
    changed = content[:place] + value + content[place + len(value) :]
    file.write_bytes(changed)
    found = attempt(folder)
    if changed == content:
        assert found is not None


def test_every_truncation_is_found(tmp_path: Path) -> None:
    """A weight file cut off anywhere at all is refused."""
    folder = make(tmp_path, modules={"m.q": (2, 2)}, r=1)
    file = weights_of(folder)
    content = file.read_bytes()
    for end in range(len(content)):
        file.write_bytes(content[:end])
        assert attempt(folder) is None
    file.write_bytes(content)
    assert attempt(folder) is not None


def test_every_byte_of_the_header(tmp_path: Path) -> None:
    """Any one byte of the header changed is found out, unless it is in what no reader looks at."""
    folder = make(tmp_path, modules={"m.q": (2, 2)}, r=1)
    file = weights_of(folder)
    content = file.read_bytes()
    before = read(folder)
    start = 8 + int.from_bytes(content[:8], "little")
    n_same = 0
    for place in range(start):
        for value in (0x22, 0x31, content[place] ^ 1):
            file.write_bytes(content[:place] + bytes([value]) + content[place + 1 :])
            found = attempt(folder)
            assert found is None or found.sha256 == before.sha256
            n_same += found is not None
    assert 0 < n_same < start  # the metadata's own text, and bytes that were so already


@given(
    fields=st.dictionaries(
        st.sampled_from(FIELDS),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
            lambda inner: (
                st.lists(inner, max_size=2)
                | st.dictionaries(st.text(max_size=8), inner, max_size=2)
            ),
            max_leaves=4,
        ),
        max_size=3,
    )
)
@SMALL
@pytest.mark.filterwarnings("ignore::FutureWarning")  # odd sets in odd patterns
def test_any_configuration(
    tmp_path_factory: pytest.TempPathFactory, fields: dict[str, Any]
) -> None:
    """Whatever the fields hold: an error that names the adapter, or an adapter with finite scales."""
    folder = make(tmp_path_factory.getbasetemp() / "fields")
    found = attempt(change_config(folder, **fields))
    if found is not None:
        assert np.isfinite(list(found.scales.values())).all()
        describe(found)
