"""Going on with a training: only with the same model, kernel and data, from checkpoints that are whole and ours."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from checkpoints import make_dense, pack
from safetensors import SafetensorError
from trainings import ROWS, interrupted, sealed, small, spoil

from workbench.engines.local import demo_model, loader
from workbench.engines.local.checkpoint import open_checkpoint
from workbench.engines.local.engine import LocalEngine
from workbench.engines.local.loader import load, needed_bytes
from workbench.errors import AdapterError, EngineUnavailable, ModelError, OutOfMemory, ParamError
from workbench.training import base, loop
from workbench.training.checkpoints import Checkpoints, check_same, locked

if TYPE_CHECKING:
    from collections.abc import Iterator

    from workbench.training import Trained

OTHER_TEMPLATE = "{% for m in messages %}[{{ m.role }}] {{ m.content }}\n{% endfor %}{% if add_generation_prompt %}> {% endif %}"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random AWQ checkpoint."""
    place = tmp_path_factory.mktemp("base")
    return pack(make_dense(place / "dense", demo_model.ensure(progress=False)), place / "awq", 32)


@pytest.fixture(scope="module")
def engine(model: Path) -> Iterator[LocalEngine]:
    """An engine on it."""
    with LocalEngine(load(model, device="cpu", kernel="fp32", progress=False)) as made:
        yield made


@pytest.fixture(autouse=True)
def _undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """No pictures: drawing takes as long as training."""
    monkeypatch.setattr("workbench.training.run._draw", lambda *a: a[-1].touch())


@pytest.fixture(scope="module")
def whole(engine: LocalEngine, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """A training without interruption."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("workbench.training.run._draw", lambda *a: a[-1].touch())
        return small(engine, tmp_path_factory.mktemp("whole") / "a")


# ------------------------------------------------------------------------------------------ model and kernel


def test_a_kernel_once_chosen_stays(model: Path, engine: LocalEngine, tmp_path: Path) -> None:
    """Going on, "auto" is the kernel of the first call; another one that is asked for, or that an engine has, is refused."""
    out = tmp_path / "a"
    interrupted(model, out, 9, kernel="int4")
    for asked, options in ((model, {"kernel": "fp32"}), (engine, {})):
        with pytest.raises(AdapterError) as caught:
            small(asked, out, **options)
        assert str(caught.value) == (
            f"{out}: another training is there: kernel was 'int4' and is 'fp32'; give another folder, or delete this one"
        )
    said: list[str] = []
    made = small(model, out, say=said.append)
    assert said[0].endswith(f"; base {model} (int4 on cpu)")
    assert said[-1].startswith(f"{out}: going on after step 8 of ")
    assert made.record["base"]["kernel"] == made.record["identity"]["kernel"] == "int4"
    with pytest.raises(AdapterError, match="kernel was 'int4' and is 'fp32'"):
        small(model, out, kernel="fp32")
    assert not small(model, out).new


def test_a_device_once_chosen_stays(tmp_path: Path) -> None:
    """Begun on a GPU, a training does not go on elsewhere in silence; "cuda" is the first GPU."""
    same = dict.fromkeys(("base", "tokenizer", "chat_template", "data"), "x")
    begun = {**same, "settings": {}, "device": "cuda:0", "kernel": "int4"}
    with pytest.raises(AdapterError) as caught:
        check_same(tmp_path, begun, begun | {"device": "cpu"})
    assert str(caught.value) == (
        f"{tmp_path}: another training is there: device was 'cuda:0' and is 'cpu'; give another folder, or delete this one"
    )
    for device in ("auto", "cuda", "cuda:0"):
        check_same(tmp_path, begun, begun | {"device": device})
    with pytest.raises(EngineUnavailable) as unavailable:
        base.as_begun(tmp_path, begun | {"device": "cuda:99"})
    assert str(unavailable.value) == (
        f"{tmp_path}: training began on cuda:99, which is not here; go on where it is, or give another folder"
    )


def test_another_chat_template_is_another_training(model: Path, tmp_path: Path) -> None:
    """Neither going on nor "nothing to do" after the template changed: the adapter was trained on other texts."""
    own = Path(shutil.copytree(model, tmp_path / "model"))
    begun, done = tmp_path / "begun", tmp_path / "done"
    interrupted(own, begun, 9)
    small(own, done, epochs=1)
    (own / "chat_template.jinja").write_text(OTHER_TEMPLATE, encoding="utf-8")
    for out, options in ((begun, {}), (done, {"epochs": 1})):
        with pytest.raises(AdapterError) as caught:
            small(own, out, **options)
        assert str(caught.value) == (
            f"{out}: another training is there: the base model's chat template is not the same; "
            "give another folder, or delete this one"
        )


def test_another_tokenizer_is_another_training(model: Path, tmp_path: Path) -> None:
    """The tokenizer's file counts like the weights."""
    own = Path(shutil.copytree(model, tmp_path / "model"))
    small(own, tmp_path / "a", epochs=1)
    file = own / "tokenizer.json"
    file.write_text(file.read_text(encoding="utf-8") + "\n", encoding="utf-8")
    with pytest.raises(AdapterError, match=": the base model's tokenizer is not the same; "):
        small(own, tmp_path / "a", epochs=1)


def test_a_folder_and_an_engine_are_the_same_base(model: Path, engine: LocalEngine) -> None:
    """What is told without loading is what the loaded model says of itself."""
    info = engine.info
    told = base.identity(model, progress=False)
    assert told == base.identity(engine, progress=False)
    assert told == {
        "base": info.weight_hash,
        "tokenizer": info.tokenizer_hash,
        "chat_template": info.chat_template_hash,
    }
    assert all(told.values())


@pytest.mark.parametrize(
    ("share", "kernel", "said"),
    [
        (0.5, "fp32", "fp32 on cpu: on a CPU it trains several times faster than int4"),
        (0.8, "int4", "int4 on cpu"),
    ],
)
def test_the_kernel_on_a_cpu(
    model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    *,
    share: float,
    kernel: str,
    said: str,
) -> None:
    """Where the weights fit dequantized, "auto" trains on them, also where generating would not; the first line says so."""
    need = needed_bytes(open_checkpoint(model), "fp32", torch.device("cpu"))
    monkeypatch.setattr(loader, "free_bytes", lambda _: int(need / share))
    assert load(model, device="cpu", progress=False).info.kernel == "int4"
    lines: list[str] = []
    made = small(model, tmp_path / "a", epochs=1, say=lines.append)
    assert made.record["base"]["kernel"] == kernel
    assert lines[0].endswith(f"; base {model} ({said})")


@pytest.mark.parametrize(("name", "value"), [("device", "cpu"), ("kernel", "int4")])
def test_an_engine_has_its_own(engine: LocalEngine, tmp_path: Path, name: str, value: str) -> None:
    """Device and kernel cannot be asked for with an engine: they would not act."""
    with pytest.raises(ParamError) as caught:
        small(engine, tmp_path / "a", **{name: value})
    assert str(caught.value) == (
        f"{name} must be 'auto' where an engine is given, which has its own, got {value!r}"
    )
    assert not (tmp_path / "a").exists()


def test_what_is_no_model(tmp_path: Path) -> None:
    """It is said before anything is looked for."""
    with pytest.raises(ModelError) as caught:
        small(None, tmp_path / "a")
    assert str(caught.value) == "model must be a name, a folder, or a local engine, got None"


# ---------------------------------------------------------------------------------------------- checkpoints


def test_without_its_record_a_training_goes_on_if_it_is_the_same(
    engine: LocalEngine, whole: Trained, tmp_path: Path
) -> None:
    """Checkpoints say which training they are of: those of another one do not count."""
    other = [{**row, "target": "purple"} for row in ROWS]
    for name, rows, goes_on in (("same", ROWS, True), ("other", other, False)):
        out = tmp_path / name
        interrupted(engine, out, 9)
        (out / "training.json").unlink()
        said: list[str] = []
        made = small(engine, out, rows, say=said.append)
        assert any("going on after step 8" in line for line in said) == goes_on
        assert (made.record["adapter"] == whole.record["adapter"]) == goes_on
        assert made.losses["step"][0] == 0
    assert made.record["adapter"] == small(engine, tmp_path / "plain", other).record["adapter"]


@pytest.mark.parametrize("finished", [False, True])
def test_checkpoints_of_others_are_not_touched(
    engine: LocalEngine, tmp_path: Path, *, finished: bool
) -> None:
    """A user's own folder of that name is refused and stays as it is, also beside a finished adapter."""
    out = tmp_path / "a"
    if finished:
        small(engine, out, epochs=1)
    precious = out / "checkpoints" / "checkpoint-500" / "model.safetensors"
    precious.parent.mkdir(parents=True)
    precious.write_text("precious", encoding="utf-8")
    with pytest.raises(AdapterError) as caught:
        small(engine, out, epochs=1)
    assert str(caught.value) == (
        f"{out / 'checkpoints'}: was not made by the workbench, which would write its own there; give another folder"
    )
    assert precious.read_text(encoding="utf-8") == "precious"


def test_what_is_put_beside_the_checkpoints_stays(engine: LocalEngine, tmp_path: Path) -> None:
    """At the end the checkpoints are deleted, and nothing else."""
    out = tmp_path / "a"
    interrupted(engine, out, 9)
    notes = out / "checkpoints" / "notes.txt"
    notes.write_text("mine", encoding="utf-8")
    small(engine, out)
    assert list((out / "checkpoints").iterdir()) == [notes]


def test_an_empty_folder_of_checkpoints(engine: LocalEngine, tmp_path: Path) -> None:
    """As a kill may leave it: there is nothing to lose in it."""
    (tmp_path / "a" / "checkpoints").mkdir(parents=True)
    assert small(engine, tmp_path / "a", epochs=1).new
    assert not (tmp_path / "a" / "checkpoints").exists()


class Rising:
    """Stands for measuring: the held-out loss is lowest at the first check."""

    def __init__(self, real: Any) -> None:
        self.real = real
        self.step = 0

    def __call__(self, model: Any, *rest: Any) -> float:
        """The step as the loss, 9 before training."""
        self.real(model, *rest)
        return float(self.step or 9)


@pytest.fixture
def rising(monkeypatch: pytest.MonkeyPatch) -> None:
    """The best checkpoint is the first one, and the newest another."""
    measure = Rising(loop.mean_loss)
    real = loop.AnswerTrainer.evaluate

    def evaluate(self: Any, *a: Any, **k: Any) -> Any:
        measure.step = self.state.global_step
        return real(self, *a, **k)

    monkeypatch.setattr(loop, "mean_loss", measure)
    monkeypatch.setattr(loop.AnswerTrainer, "evaluate", evaluate)


@pytest.mark.usefixtures("rising")
@pytest.mark.parametrize(
    ("damaged", "said", "calls"),
    [
        ([0], ["checkpoint-2 is damaged; training begins anew"], [0, 0]),
        ([1], ["checkpoint-8 is damaged", "going on after step 2 of {n}"], [0, 2]),
        ([0, 1], ["checkpoint-2, checkpoint-8 are damaged; training begins anew"], [0, 0]),
    ],
    ids=["best", "newest", "both"],
)
def test_damaged_checkpoints(
    engine: LocalEngine, tmp_path: Path, damaged: list[int], said: list[str], calls: list[int]
) -> None:
    """Training goes on from one whose best is there, or begins anew, says so, and keeps the record; the adapter is the same."""
    plain = small(engine, tmp_path / "plain")
    assert plain.record["result"]["best_step"] == 2
    out = tmp_path / "a"
    interrupted(engine, out, 9, about="colours", evaluated="builtin:capitals")
    pair = sealed(out)
    assert [path.name for path in pair] == ["checkpoint-2", "checkpoint-8"]
    for number in damaged:
        spoil(pair[number])
    lines: list[str] = []
    made = small(engine, out, say=lines.append)
    n_steps = plain.record["result"]["n_steps"]
    assert lines[2:] == [f"{out}: {line.format(n=n_steps)}" for line in said]
    assert made.record["adapter"] == plain.record["adapter"]
    assert list(made.losses["step"]) == list(plain.losses["step"])
    assert [call["after_step"] for call in made.record["calls"]] == calls
    names = [pair[number].name for number in damaged]
    assert [call["damaged"] for call in made.record["calls"]] == [[], names]
    assert made.record["about"] == "colours"
    assert [s["name"] for s in made.record["evaluated"]] == ["capitals"]
    assert not small(engine, out).new


@pytest.mark.parametrize("name", ["trainer_state.json", "optimizer.pt", "rng_state.pth"])
@pytest.mark.parametrize("resealed", [False, True], ids=["changed", "written so"])
def test_files_of_a_checkpoint_that_cannot_be_used(
    engine: LocalEngine, whole: Trained, tmp_path: Path, name: str, *, resealed: bool
) -> None:
    """Zeroed, or sealed although nothing can load it: the checkpoint before is gone on from, or training begins anew."""
    out = tmp_path / "a"
    interrupted(engine, out, 9)
    newest = sealed(out)[-1]
    file = newest / name
    file.write_bytes(b"\0" * file.stat().st_size)
    if resealed:
        record = json.loads((out / "training.json").read_text(encoding="utf-8"))
        Checkpoints(out, record["identity"]).seal(8)
    lines: list[str] = []
    made = small(engine, out, say=lines.append)
    assert lines[-1] == f"{out}: checkpoint-8 is damaged; training begins anew"
    assert made.record["adapter"] == whole.record["adapter"]
    assert [call["damaged"] for call in made.record["calls"]] == [[], ["checkpoint-8"]]
    assert [call["after_step"] for call in made.record["calls"]] == [0, 0]


def test_damaged_checkpoints_of_another_training(engine: LocalEngine, tmp_path: Path) -> None:
    """Other settings do not take the place of a training whose checkpoints were damaged."""
    out = tmp_path / "a"
    interrupted(engine, out, 9)
    for path in sealed(out):
        spoil(path)
    assert sealed(out) == []
    with pytest.raises(AdapterError) as caught:
        small(engine, out, epochs=1)
    assert str(caught.value) == (
        f"{out}: another training is there: epochs was 3 and is 1; give another folder, or delete this one"
    )


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (OSError(28, "No space left on device"), "No space left on device"),
        (
            SafetensorError("I/O error: No space left on device (os error 28)"),
            "I/O error: No space left on device (os error 28)",
        ),
        (
            RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 576 vs 534"),
            "torch met the end of a file too early",
        ),
    ],
)
def test_no_room_on_the_disk(
    engine: LocalEngine, whole: Trained, tmp_path: Path, error: Exception, reason: str
) -> None:
    """A file that cannot be written is one clear error with the folder; once there is room the same call goes on."""
    out, real, written = tmp_path / "a", loop.save_file, []

    def save(*args: Any, **options: Any) -> None:
        written.append(args)
        if len(written) == 2:
            raise error
        real(*args, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "save_file", save)
        with pytest.raises(AdapterError) as caught:
            small(engine, out)
    assert str(caught.value) == (
        f"{out}: its files cannot be written or read ({reason}); "
        f"make room or mend it and call again, or delete {out / 'checkpoints'} to begin anew"
    )
    said: list[str] = []
    assert small(engine, out, say=said.append).record["adapter"] == whole.record["adapter"]
    assert said[-1].startswith(f"{out}: going on after step 2 of ")


def test_other_faults_are_not_laid_to_the_disk(engine: LocalEngine, tmp_path: Path) -> None:
    """A RuntimeError that is not about files comes as it is."""

    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("shapes do not fit")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "train", fail)
        with pytest.raises(RuntimeError, match=r"^shapes do not fit$"):
            small(engine, tmp_path / "a")


def test_memory_that_ends_late(engine: LocalEngine, tmp_path: Path) -> None:
    """Once there is a checkpoint, other settings are another training, and the advice says so."""
    out = tmp_path / "a"
    interrupted(engine, out, 9)

    def fail(*_: Any, **__: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "train", fail)
        with pytest.raises(OutOfMemory, match=r"max_length, and train into another --out$"):
            small(engine, out)


# -------------------------------------------------------------------------------------- what is newly said


def test_what_is_said_later_is_kept(engine: LocalEngine, tmp_path: Path) -> None:
    """Sets named and purposes given to a finished adapter go into its record and card, once."""
    out = tmp_path / "a"
    first = small(engine, out, epochs=1, about="colours", evaluated="builtin:capitals")
    said: list[str] = []
    options: dict[str, Any] = {
        "epochs": 1,
        "evaluated": ["builtin:arithmetic", "builtin:capitals"],
        "say": said.append,
    }
    later = small(engine, out, about="colours of boxes", **options)
    assert (later.new, later.record["about"]) == (False, "colours of boxes")
    assert [s["name"] for s in later.record["evaluated"]] == ["capitals", "arithmetic"]
    assert later.record == json.loads((out / "training.json").read_text(encoding="utf-8"))
    assert later.record["adapter"] == first.record["adapter"]
    card = (out / "README.md").read_text(encoding="utf-8")
    assert "**Made for:** colours of boxes" in card
    assert "- arithmetic (79 prompts" in card
    assert "- capitals (" in card
    before = {p: p.stat().st_mtime_ns for p in out.iterdir()}
    again = small(engine, out, **options)
    assert again.record == later.record
    assert before == {p: p.stat().st_mtime_ns for p in out.iterdir()}
    ended = first.record["ended_utc"]
    assert said == [
        f"{out}: finished {ended}; its card was brought up to date",
        f"{out}: finished {ended}; nothing to do",
    ]


def test_what_was_said_before_a_kill_is_kept(engine: LocalEngine, tmp_path: Path) -> None:
    """Going on without naming the sets again does not forget them."""
    out = tmp_path / "a"
    interrupted(engine, out, 9, about="colours", evaluated="builtin:capitals")
    made = small(engine, out, evaluated="builtin:arithmetic")
    assert [s["name"] for s in made.record["evaluated"]] == ["capitals", "arithmetic"]
    assert made.record["about"] == "colours"
    first, second = made.record["calls"]
    assert (first["after_step"], second["after_step"]) == (0, 8)
    assert made.record["started_utc"] == first["started_utc"] < second["started_utc"]


# ------------------------------------------------------------------------------------------------ record and lock


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("status", None),
        ("status", "begun"),
        ("identity", None),
        ("identity", {}),
        ("calls", [3]),
        ("evaluated", ["x"]),
        ("data", {}),
        ("result", None),
        ("adapter", "abc"),
        ("adapter", {"sha256": 3}),
    ],
)
def test_a_record_that_lacks_something(
    whole: Trained, engine: LocalEngine, tmp_path: Path, field: str, value: object
) -> None:
    """A record without a field, or with another kind of it, is one clear error."""
    out = Path(shutil.copytree(whole.path, tmp_path / "a"))
    record = dict(whole.record) | {field: value}
    if value is None:
        del record[field]
    (out / "training.json").write_text(json.dumps(record), encoding="utf-8")
    with pytest.raises(AdapterError) as caught:
        small(engine, out)
    assert str(caught.value) == f"{out / 'training.json'}: damaged; copy it again, or train again"


def test_a_finished_folder_that_cannot_be_written(
    whole: Trained, engine: LocalEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There is nothing to do, and nothing is written to find that out; something new to say needs it written."""
    out = Path(shutil.copytree(whole.path, tmp_path / "a"))

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("workbench.training.checkpoints.FileLock", refuse)
    monkeypatch.setattr("workbench.training.checkpoints.write_whole", refuse)
    out.chmod(0o555)
    try:
        said: list[str] = []
        assert not small(engine, out, say=said.append).new
        assert said == [f"{out}: finished {whole.record['ended_utc']}; nothing to do"]
        with pytest.raises(AdapterError) as caught:
            small(engine, out, about="something new")
        assert str(caught.value) == f"{out}: cannot be written (Permission denied)"
    finally:
        out.chmod(0o755)


def test_who_waits_for_the_lock_has_it_alone(tmp_path: Path) -> None:
    """A process that opened the lock file while another held it keeps out a third one, once it has the lock."""
    with locked(tmp_path):
        waiting = os.open(tmp_path / ".training.lock", os.O_RDWR)
    try:
        fcntl.flock(waiting, fcntl.LOCK_EX | fcntl.LOCK_NB)
        with (
            pytest.raises(AdapterError, match="another process is training there"),
            locked(tmp_path),
        ):
            pass
    finally:
        os.close(waiting)
    with locked(tmp_path):
        pass
