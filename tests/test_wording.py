"""Templates in a study: the wording of the prompts as one more thing that cells differ in."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from workbench import api
from workbench.engines.scripted import ScriptedEngine
from workbench.errors import PromptSetError, StudyError
from workbench.prompts import PromptSet
from workbench.study import Study
from workbench.wording import word

if TYPE_CHECKING:
    from pathlib import Path

ROWS = [{"id": f"q{i}", "vars": {"a": i, "b": 2 * i}, "target": 3 * i} for i in range(1, 5)]
TEMPLATES = {
    "short": "{{ a }} + {{ b }} =",
    "polite": [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": "Please add {{ a }} and {{ b }}."},
    ],
}


def study(**changes: Any) -> Study:
    """Two templates, two temperatures."""
    base: dict[str, Any] = {
        "prompts": PromptSet.from_records(ROWS),
        "templates": TEMPLATES,
        "grid": {"temperature": [0, 0.8]},
        "fixed": {"max_tokens": 8},
        "scorers": ["numeric"],
        "engine": {"kind": "scripted"},
        "latency": False,
    }
    return Study(**(base | changes))


def test_every_setting_runs_with_every_template() -> None:
    """Cells are templates x settings, told apart by id and label, in the order of the study."""
    cells = study().cells()
    assert [(c.template, c.label) for c in cells] == [
        ("short", "greedy short"),
        ("short", "T=0.8 short"),
        ("polite", "greedy polite"),
        ("polite", "T=0.8 polite"),
    ]
    assert len({c.cell_id for c in cells}) == 4
    assert study(templates=None).cells()[0].cell_id not in {c.cell_id for c in cells}


def test_requests_carry_the_wording_of_their_cell() -> None:
    """Each request has the messages of its cell's template; the seed of a prompt is the same in all of them."""
    plan = study().plan()
    requests = [r for r in plan if r.prompt_id == "q2"]
    assert [r.messages[-1]["content"] for r in requests] == [
        *["2 + 4 ="] * 2,
        *["Please add 2 and 4."] * 2,
    ]
    assert requests[2].messages[0] == {"role": "system", "content": "Be kind."}
    assert len({r.params.seed for r in requests if not r.params.greedy}) == 1
    for request in requests:
        assert plan.request(*request.key) == request
        assert plan.prompt(request.cell_id, "q2").messages == request.messages


def test_an_empty_template_is_the_prompt_as_it_is() -> None:
    """Null words nothing, so that a wording can be compared with none."""
    rows = [{"id": "a", "prompt": "Hello"}]
    plan = study(
        prompts=PromptSet.from_records(rows),
        templates={"plain": None, "loud": "{{ input | upper }}"},
        scorers=[],
    ).plan()
    said = {r.cell_id: r.messages[-1]["content"] for r in plan}
    assert sorted(said.values()) == ["HELLO", "HELLO", "Hello", "Hello"]


def test_a_run_keeps_its_wordings(tmp_path: Path) -> None:
    """Template names are in the tables and the summary; the run reads back, scores again and is not run twice."""
    engine = ScriptedEngine()
    first = api.run(study(repeats=2), engine, tmp_path, progress=False, say=lambda _: None)
    rows = first.generations
    assert rows.groupby("template").size().to_dict() == {"polite": 12, "short": 12}
    asked = rows.groupby(["cell_id", "prompt_id"])["prompt"].first()
    for cell in first.cells.itertuples():
        worded = first.prompt(cell.cell_id, "q3").messages[-1]["content"]
        assert worded in asked[cell.cell_id, "q3"]
    assert first.summary()["template"].tolist() == ["short", "short", "polite", "polite"]
    assert len(api.score(first, ["contains"], progress=False).scores) == 48
    told: list[str] = []
    again = api.run(study(repeats=2), engine, tmp_path, progress=False, say=told.append)
    assert again.path == first.path
    assert "nothing to run" in told[0]


def test_the_baseline_can_name_a_template() -> None:
    """By settings and template; without one, the first template is meant."""
    assert study(baseline={"temperature": 0.8}).plan().baseline.label == "T=0.8 short"
    named = study(baseline={"temperature": 0, "template": "polite"}).plan().baseline
    assert named.label == "greedy polite"
    with pytest.raises(StudyError) as caught:
        study(baseline={"temperature": 0, "template": "rude"})
    assert "baseline: no cell has" in str(caught.value)


def test_a_study_without_templates_keeps_its_hash() -> None:
    """The new field is not part of a study that does not use it."""
    assert "templates" not in study(templates=None).to_dict()
    assert study().to_dict()["templates"] == TEMPLATES
    assert Study.from_dict(study(prompts=["Hi"]).to_dict()).sha256 == study(prompts=["Hi"]).sha256


@pytest.mark.parametrize(
    ("templates", "said"),
    [
        ("{{ a }}", "templates: must be name: template, got '{{ a }}'"),
        ({"a b": "x"}, "templates.a b: a template's name must be"),
        ({"x": "{{ a"}, "templates.x: "),
        ({"x": 3}, "templates.x: "),
    ],
)
def test_templates_that_cannot_be_used(templates: Any, said: str) -> None:
    """Each mistake is named at the place where it was made."""
    with pytest.raises(StudyError) as caught:
        study(templates=templates)
    assert any(problem.startswith(said) for problem in caught.value.problems)


def test_a_missing_variable_is_named_once_per_prompt() -> None:
    """The error names template, prompt and variable, and stops after twenty."""
    prompts = PromptSet.from_records([{"id": f"q{i}", "vars": {"a": i}} for i in range(40)])
    with pytest.raises(PromptSetError) as caught:
        word(prompts, {"short": TEMPLATES["short"]})
    problems = caught.value.problems
    assert "short" in problems[0]
    assert "'q0'" in problems[0]
    assert "'b'" in problems[0]
    assert problems[-1] == "..."
    assert len(problems) == 21


@pytest.mark.parametrize(
    ("templates", "where"),
    [({}, "the study has no templates"), ({"plain": None}, "template 'plain' is empty")],
)
def test_rows_of_variables_need_a_template(templates: dict[str, Any], where: str) -> None:
    """Rows without a wording of their own are refused where nothing words them."""
    with pytest.raises(PromptSetError) as caught:
        study(templates=templates).plan()
    assert f"4 of 4 prompts are only vars and {where} (first: 'q1')" in str(caught.value)
    with pytest.raises(PromptSetError, match="4 of 4 prompts are only vars"):
        study(templates=templates, system="Be brief.").plan()


def test_prompts_can_be_a_file_with_other_column_names(tmp_path: Path) -> None:
    """A source may be a mapping; what is wrong with it is a problem of the study."""
    (tmp_path / "q.csv").write_text("Question,Answer\nOne and one?,2\n", encoding="utf-8")
    spec = {"file": "q.csv", "fields": {"prompt": "Question", "target": "Answer"}}
    made = study(prompts=spec, templates=None, base_dir=tmp_path)
    (prompt,) = made.load_prompts()
    assert (prompt.messages[0]["content"], prompt.target) == ("One and one?", "2")
    assert Study.from_dict(made.to_dict(), base_dir=tmp_path).sha256 == made.sha256
    with pytest.raises(StudyError) as caught:
        study(prompts={"file": "q.csv", "feilds": {}}, templates=None, base_dir=tmp_path)
    assert "feilds" in str(caught.value)
    assert study(prompts="builtin:arithmetic", templates=None).load_prompts().name == "arithmetic"
