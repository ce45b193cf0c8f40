"""The check before a run: a setting that does nothing is found, one that acts is not blamed."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

import workbench as wb
from workbench import canary
from workbench.engines.scripted import ScriptedEngine
from workbench.errors import EngineUnavailable, SettingInert
from workbench.params import SamplingParams

TRIED = (
    "max_tokens",
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "repetition_penalty",
    "frequency_penalty",
    "presence_penalty",
)
VALUES = {
    "max_tokens": [4, 8],
    "temperature": [0, 1],
    "top_p": [0.5, 1],
    "top_k": [2, 40],
    "min_p": [0.1, 0.5],
    "repetition_penalty": [1, 1.2],
    "frequency_penalty": [0, 1],
    "presence_penalty": [0, 1],
}


class Ignoring(ScriptedEngine):
    """A hosted model that takes some settings and does without them; each answer has noise of its own if asked to."""

    def __init__(self, *ignored, noisy=False, **options):
        super().__init__(**options)
        self.ignored, self.noisy, self.n_asked = ignored, noisy, 0

    def generate(self, requests):
        """Answer with the default in place of what is ignored."""
        return super().generate(self._without(r) for r in requests)

    def _without(self, request):
        self.n_asked += 1
        plain = SamplingParams(max_tokens=64, temperature=1.0)
        changes = {name: getattr(plain, name) for name in self.ignored}
        if self.noisy:
            changes["seed"] = self.n_asked
        return replace(request, params=request.params.replace(**changes))


def _study(grid, **changes):
    prompts = [{"id": "a", "prompt": "What?"}, {"id": "b", "prompt": "Why?"}]
    fixed = {"max_tokens": 6, "temperature": 0.9}
    fixed = {name: value for name, value in fixed.items() if name not in grid}
    return wb.Study(name="c", model="scripted", prompts=prompts, grid=grid, fixed=fixed, **changes)


@pytest.mark.parametrize("name", TRIED)
def test_a_setting_that_acts_passes(name):
    """An engine that honours all settings passes, and the manifest says what was seen."""
    found = canary.try_settings(ScriptedEngine(), [name])
    assert found[name].acts is True, found


@pytest.mark.parametrize("noisy", [False, True], ids=["same noise", "noise of its own"])
@pytest.mark.parametrize("name", TRIED)
def test_a_setting_that_is_ignored_is_found(name, noisy):
    """Each setting, ignored alone, is the only one blamed, also where every answer has noise of its own."""
    found = canary.try_settings(Ignoring(name, noisy=noisy), TRIED)
    assert [n for n, tried in found.items() if tried.acts is False] == [name]


@pytest.mark.parametrize("name", TRIED)
def test_a_run_is_refused_before_it_starts(name, tmp_path):
    """A study that varies an ignored setting ends in one error and leaves no run behind."""
    with pytest.raises(SettingInert, match="take it out of the study") as caught:
        wb.run(_study({name: VALUES[name]}), Ignoring(name), tmp_path, progress=False)
    text = str(caught.value)
    assert text.startswith(
        f"the study varies what does nothing with this engine (scripted, {ScriptedEngine().info.model}): {name} ("
    )
    assert not list(tmp_path.rglob("run.sqlite"))


def test_an_inert_setting_may_be_allowed(tmp_path):
    """With allow_inert the run is made, and its manifest says that the setting does nothing."""
    study = _study({"top_k": [2, 40]}, allow_inert=True)
    run = wb.run(study, Ignoring("top_k"), tmp_path, progress=False)
    entry = run.manifest["settings"]["top_k"]
    assert entry["acts"] is False
    assert entry["requested"] == [2, 40]


def test_only_what_varies_is_tried(tmp_path):
    """A setting that is the same everywhere is not tried, nor is anything in a study of one cell."""
    run = wb.run(_study({"top_k": [2, 40]}), Ignoring("top_p"), tmp_path, progress=False)
    assert list(run.manifest["settings"]) == ["top_k"]
    engine = Ignoring("top_p")
    wb.run(_study({"top_k": [2]}), engine, tmp_path / "one", progress=False)
    assert engine.n_asked == 2


def test_a_finished_run_is_not_tried_again(tmp_path):
    """Running a finished study again asks the engine nothing."""
    study = _study({"temperature": [0.5, 1]})
    wb.run(study, ScriptedEngine(), tmp_path, progress=False)
    engine = Ignoring()
    wb.run(study, engine, tmp_path, progress=False)
    assert engine.n_asked == 0


def test_greedy_answers_that_differ_by_themselves():
    """Where greedy decoding is not repeatable a penalty cannot be judged, and is not blamed."""
    engine = Ignoring("temperature", noisy=True)
    tried = canary.try_settings(engine, ["presence_penalty"])["presence_penalty"]
    assert tried == canary.Tried(
        None, "cannot be told: greedy answers of this engine differ by themselves"
    )


def test_a_try_that_fails_is_no_verdict():
    """If the engine cannot answer the check, the setting is not blamed, and the reason is kept."""
    tried = canary.try_settings(ScriptedEngine(context_length=8), ["top_k"])["top_k"]
    assert tried.acts is None
    assert re.match(r"could not be tried: prompt of \d+ tokens and max_tokens 1 exceed", tried.saw)


def test_an_engine_that_gives_up_stops_the_run(tmp_path):
    """An error of the engine itself comes through."""
    engine = ScriptedEngine()
    engine.close()
    with pytest.raises(EngineUnavailable, match="is closed"):
        wb.run(_study({"top_k": [2, 40]}), engine, tmp_path, progress=False)


def test_effective_values(tmp_path):
    """What an engine clamps is in the manifest, requested and effective."""

    class Clamping(ScriptedEngine):
        """Takes top_k up to 50."""

        def effective(self, params):
            """The settings that act."""
            return params.replace(top_k=min(params.top_k, 50))

    run = wb.run(_study({"top_k": [10, 50, 90]}), Clamping(), tmp_path, progress=False)
    entry = run.manifest["settings"]["top_k"]
    assert entry["requested"] == [10, 50, 90]
    assert entry["effective"] == {"90": 50}


def test_the_local_engine_says_when_top_k_is_off(demo_engine):
    """A top_k of the whole vocabulary or more cuts nothing off."""
    assert demo_engine.effective(SamplingParams(top_k=10**6)).top_k is None
    assert demo_engine.effective(SamplingParams(top_k=50)).top_k == 50


def test_the_demo_model_passes(demo_engine):
    """Every setting acts with the real engine."""
    found = canary.try_settings(demo_engine, TRIED)
    assert all(tried.acts for tried in found.values()), found
