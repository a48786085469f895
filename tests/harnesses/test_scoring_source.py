"""What changes the digest of a scorer: code that it reaches, and nothing else."""

import importlib.util
import sys
from functools import partial
from types import ModuleType

import pytest

from vico_eval.harnesses import scoring_source
from vico_eval.harnesses.scoring_source import Toolkit, scorer_digest

FILES = {
    "__init__.py": "VERSION = 1\n",
    "tasks/__init__.py": "",
    "tasks/_shared/__init__.py": "",
    "tasks/_shared/words.py": "import re\n\nFULL_STOP = '.'\n\ndef clean(text):\n    return text.strip(FULL_STOP)\n\n"
    "def unused(text):\n    return text\n",
    "tasks/_shared/late.py": "def half(number):\n    return number / 2\n",
    "tasks/_shared/all.py": "from kit.tasks._shared.words import clean\n",
    "tasks/read/utils.py": '''"""Scores."""
from loguru import logger
from kit.tasks._shared.all import clean
from kit.server import ask

WORDS = {"yes": 1}

def helper(text):
    """What it does."""
    return WORDS.get(clean(text), 0)

def process_results(doc, results):
    # a comment
    from kit.tasks._shared.late import half
    ask()
    return {"score": half(helper(results[0]))}

def doc_to_text(doc):
    return doc["question"]
''',
    "server.py": "def ask():\n    return 1\n",
}


@pytest.fixture
def digest_with(tmp_path, monkeypatch):
    """The digest of `process_results` where one text of a file is another."""

    def digest(file=None, old="", new="", function="process_results", wrapped=lambda one: one):
        for name, text in FILES.items():
            path = tmp_path / "kit" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            assert name != file or old in text
            path.write_text(text.replace(old, new) if name == file else text)
        for cached in (scoring_source._tree, scoring_source._definitions, scoring_source._imports):
            cached.cache_clear()
        for name in [name for name in sys.modules if name.partition(".")[0] == "kit"]:
            monkeypatch.delitem(sys.modules, name)
        monkeypatch.syspath_prepend(tmp_path)
        # As lmms-eval loads a task's functions: by their file, not by a name in the package.
        spec = importlib.util.spec_from_file_location("utils", tmp_path / "kit" / "tasks" / "read" / "utils.py")
        module = importlib.util.module_from_spec(spec)
        loguru = ModuleType("loguru")
        loguru.logger = None
        monkeypatch.setitem(sys.modules, "loguru", loguru)
        spec.loader.exec_module(module)
        import kit

        return scorer_digest([wrapped(getattr(module, function))], Toolkit.of(kit, "tasks"))

    return digest


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("tasks/read/utils.py", "results[0]", "results[-1]"),
        ("tasks/read/utils.py", '"yes": 1', '"yes": 2'),
        ("tasks/read/utils.py", ", 0)", ", None)"),
        ("tasks/_shared/words.py", "strip(FULL_STOP)", "rstrip(FULL_STOP)"),
        ("tasks/_shared/words.py", "'.'", "'!'"),
        ("tasks/_shared/late.py", "/ 2", "/ 3"),
    ],
)
def test_code_that_is_reached_changes_it(digest_with, file, old, new):
    assert digest_with(file, old, new) != digest_with()


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("tasks/read/utils.py", "    # a comment\n", ""),
        ("tasks/read/utils.py", "What it does.", "What it did."),
        ("tasks/read/utils.py", '"""Scores."""', ""),
        ("tasks/read/utils.py", 'doc["question"]', 'doc["text"]'),
        ("tasks/_shared/words.py", "    return text\n", "    return text.lower()\n"),
        ("server.py", "return 1", "return 2"),  # no part in which scorers are
        ("__init__.py", "1", "2"),
    ],
)
def test_nothing_else_does(digest_with, file, old, new):
    assert digest_with(file, old, new) == digest_with()


def test_a_function_with_arguments_filled_in_is_that_function(digest_with):
    assert digest_with(wrapped=lambda one: partial(one, doc=None)) == digest_with()
    assert digest_with(function="doc_to_text") != digest_with()


def test_settings_change_it(digest_with, tmp_path):
    digest_with()
    import kit

    toolkit = Toolkit.of(kit, "tasks")
    assert scorer_digest([], toolkit, {"metric": "a"}) != scorer_digest([], toolkit, {"metric": "b"})
