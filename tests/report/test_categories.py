from pathlib import Path

import pytest
from pydantic import ValidationError

from vico_eval.report.strata.categories import MOST_CATEGORIES, categories_of
from vico_eval.runs.results import Document, TaskResult
from vico_eval.score_rules import Category
from vico_eval.suites import load_benchmarks


def task(*fields, name="t"):
    return TaskResult(
        name=name,
        metrics={},
        documents=tuple(Document(doc_id=place, fields=own, account=None) for place, own in enumerate(fields)),
        num_available=len(fields),
        version="",
        settings={},
        results_path=Path("r"),
        samples_path=Path("s"),
    )


def test_a_key_of_whichever_metric_has_it():
    own = task(
        {"mme_perception_score": {"category": "count", "score": 1}, "other": 0.5},
        {"mme_cognition_score": {"category": "code", "score": 0}},
        {"exact_match": 1.0},
    )
    assert categories_of(Category(key="category"), [own]) == ["count", "code", ""]


def test_a_column_of_vlmevalkit():
    assert categories_of(Category(key="duration"), [task({"duration": "short"}, {"duration": "long"})]) == [
        "short",
        "long",
    ]


def test_the_metric_beside_that_of_all_documents():
    own = task(
        {"average": {"score": 1}, "math": {"score": 1}}, {"average": {}, "logic": {}}, {"average": {}, "a": 1, "b": 1}
    )
    assert categories_of(Category(beside=("average",)), [own]) == ["math", "logic", ""]
    nested = task({"accuracy": {"overall": 1, "ocr": 1}}, {"accuracy": {"overall": 0, "memes": 0}}, {"accuracy": 3})
    assert categories_of(Category(beside=("accuracy", "overall")), [nested]) == ["ocr", "memes", ""]


def test_several_tasks_are_categories_themselves():
    assert categories_of(None, [task({}, {}, name="pope_adv"), task({}, name="pope_pop")]) == ["pope_adv"] * 2 + [
        "pope_pop"
    ]
    assert categories_of(None, [task({}, {})]) is None


def test_what_is_no_category():
    assert categories_of(Category(key="category"), [task({"category": "a"}, {"category": "a"})]) is None
    ids = [{"question": {"category": number}} for number in range(MOST_CATEGORIES + 1)]
    assert categories_of(Category(key="category"), [task(*ids)]) is None
    odd = task({"m": {"category": ["a"]}}, {"m": {"category": None}}, {"m": {"category": 3}}, {"m": {"category": "b"}})
    assert categories_of(Category(key="category"), [odd]) == ["", "", "3", "b"]


@pytest.mark.parametrize("given", [{}, {"key": "a", "beside": ["b"]}])
def test_a_rule_says_one_of_both(given):
    with pytest.raises(ValidationError, match="expected exactly one of `key` and `beside`"):
        Category.model_validate(given)


def test_the_catalogue_names_categories_where_scorers_keep_them():
    catalogue = load_benchmarks()
    assert catalogue["mmstar"].category == Category(beside=("average",))
    assert catalogue["videomme"].category == Category(key="duration")
    assert catalogue["docvqa"].category is None
