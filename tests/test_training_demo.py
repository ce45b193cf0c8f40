"""The demo adapters: made once, found again, made anew where damaged; and what they do, for real."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from filelock import FileLock

from workbench import registry
from workbench.errors import AdapterError
from workbench.params import SamplingParams
from workbench.records import Generation, Request
from workbench.scorers import score_generation
from workbench.scorers.several import get_scorers
from workbench.training import demo, overlap
from workbench.training.demo import demo_adapters

if TYPE_CHECKING:
    from pathlib import Path

    from workbench.engines.local.engine import LocalEngine


class Trainer:
    """Stands for `train`: writes two files, or fails."""

    def __init__(self) -> None:
        self.calls: list[dict[str, Any]] = []
        self.fail = 0

    def __call__(self, data: Path, *, out: Path, **options: Any) -> None:
        """Note the call."""
        self.calls.append({"data": data, "out": out, **options})
        out.mkdir(parents=True, exist_ok=True)
        if self.fail:
            self.fail -= 1
            raise AdapterError("does not fit")
        (out / "training.json").write_text("{}", encoding="utf-8")
        (out / "adapter_model.safetensors").write_text(data.name, encoding="utf-8")


@pytest.fixture
def trainer(monkeypatch: pytest.MonkeyPatch) -> Trainer:
    """In the place of `train`."""
    made = Trainer()
    monkeypatch.setattr(demo, "train", made)
    return made


def test_they_are_trained_once(trainer: Trainer, tmp_path: Path) -> None:
    """The first call trains both, with all evaluated sets named; the second finds them."""
    made = demo_adapters(tmp_path, progress=False)
    assert {name: path.name for name, path in made.items()} == {n: n for n in demo.SETTINGS}
    assert [call["data"].stem for call in trainer.calls] == list(demo.SETTINGS)
    for call in trainer.calls:
        assert call["evaluated"] == [f"builtin:{name}" for name in registry.names()]
        assert call["about"]
    assert demo_adapters(tmp_path, progress=False) == made
    assert len(trainer.calls) == 2
    assert all(demo.is_whole(path) for path in made.values())


def test_a_damaged_one_is_trained_anew(trainer: Trainer, tmp_path: Path) -> None:
    """Only the one whose files are not as they were written."""
    made = demo_adapters(tmp_path, progress=False)
    (made["polite"] / "adapter_model.safetensors").write_text("x", encoding="utf-8")
    assert not demo.is_whole(made["polite"])
    demo_adapters(tmp_path, progress=False)
    assert [call["data"].stem for call in trainer.calls[2:]] == ["polite"]
    assert demo.is_whole(made["polite"])


def test_what_a_kill_left_is_gone_on_from(trainer: Trainer, tmp_path: Path) -> None:
    """A build that was killed, even after its last file, is finished in its own folder."""
    made = demo_adapters(tmp_path, progress=False)["polite"]
    work = trainer.calls[1]["out"]
    work.parent.mkdir(exist_ok=True)
    made.rename(work)
    assert demo_adapters(tmp_path, progress=False)["polite"] == made
    assert trainer.calls[-1]["out"] == work
    assert demo.is_whole(made)
    assert not work.exists()


def test_what_does_not_fit_is_thrown_away(trainer: Trainer, tmp_path: Path) -> None:
    """Left-overs of another training are deleted once; an error without left-overs is an error."""
    demo_adapters(tmp_path, progress=False)["polite"].rename(trainer.calls[1]["out"])
    trainer.fail = 1
    made = demo_adapters(tmp_path, progress=False)["polite"]
    assert len(trainer.calls) == 4
    assert demo.is_whole(made)
    trainer.fail = 1
    with pytest.raises(AdapterError, match="does not fit"):
        demo_adapters(tmp_path / "other", progress=False)


def test_other_data_are_other_adapters(
    trainer: Trainer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A change of the settings does not take an older adapter for the new one."""
    first = demo_adapters(tmp_path, progress=False)
    monkeypatch.setitem(demo.SETTINGS, "polite", {"epochs": 1, "seed": 5})
    second = demo_adapters(tmp_path, progress=False)
    assert first["polite"] != second["polite"]
    assert first["terse-sums"] == second["terse-sums"]
    assert len(trainer.calls) == 3


def test_processes_wait_for_each_other(trainer: Trainer, tmp_path: Path) -> None:
    """While it trains, a call holds the adapter's lock."""
    held: list[bool] = []

    def train(data: Path, *, out: Path, **options: Any) -> None:
        lock = FileLock(out.parent.parent / f"{out.name}.lock", timeout=0)
        held.append(lock_is_taken(lock))
        Trainer()(data, out=out, **options)

    trainer.calls.clear()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(demo, "train", train)
        demo_adapters(tmp_path, progress=False)
    assert held == [True, True]


def lock_is_taken(lock: FileLock) -> bool:
    """Whether somebody else holds a lock."""
    from filelock import Timeout

    try:
        with lock:
            return False
    except Timeout:
        return True


# ------------------------------------------------------------------------------------------------ for real


def answers(engine: LocalEngine, name: str, adapter: str) -> tuple[float, list[Generation]]:
    """Mean score and answers on a set that ships, greedy."""
    entry, prompts = registry.entry(name), registry.load(name)
    scorer = get_scorers(list(entry.scorers))[0]
    params = SamplingParams(temperature=0, max_tokens=entry.max_tokens)
    requests = [Request("c", p.id, 0, p.messages, params, adapter, p.tools) for p in prompts]
    made = list(engine.generate(requests))
    scores = [score_generation(scorer, g, prompts[g.prompt_id]).value or 0.0 for g in made]
    return sum(scores) / len(scores), made


@pytest.mark.long
def test_what_the_demo_adapters_do(demo_engine: LocalEngine) -> None:
    """``terse-sums`` answers far more sums, in fewer tokens; ``polite`` answers fewer, cut off by courtesy."""
    made = demo_adapters(progress=False)
    for name, path in made.items():
        assert overlap(path, "builtin:arithmetic") == ()
        demo_engine.load_adapter(path, name)
    try:
        found = {n: answers(demo_engine, "arithmetic", n) for n in ("base", *made)}
    finally:
        for name in made:
            demo_engine.unload_adapter(name)
    tokens = {n: sum(len(g.token_ids) for g in gs) / len(gs) for n, (_, gs) in found.items()}
    cut = {
        n: sum(g.finish_reason == "length" for g in gs) / len(gs) for n, (_, gs) in found.items()
    }
    assert found["terse-sums"][0] >= found["base"][0] + 0.2
    assert tokens["terse-sums"] < 4 < tokens["base"]
    assert found["polite"][0] < found["base"][0]
    assert cut["polite"] > 0.9
    record = json.loads((made["terse-sums"] / "training.json").read_text(encoding="utf-8"))
    assert (
        record["result"]["validation_loss"]["kept"] < record["result"]["validation_loss"]["before"]
    )
