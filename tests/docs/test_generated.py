"""What the site makes of the code, and what README and pages say of it by hand."""

import ast
import importlib.util
import re
from pathlib import Path

import pytest

from vico_eval.methods import registry
from vico_eval.methods.about import about
from vico_eval.suites import load_benchmarks, load_suite

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "vico_eval"


@pytest.fixture(scope="module")
def generate():
    """docs/generate.py, the hooks of the site."""
    pytest.importorskip("mkdocs")
    spec = importlib.util.spec_from_file_location("generate", ROOT / "docs" / "generate.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", registry.BUILT_IN)
def test_every_methods_page_says_where_it_is_from_and_what_its_parameters_mean(generate, name):
    page = generate.method_page(name)
    for fact in ("Place", "Source", "Models", "Golden data", "Code"):
        assert re.search(rf"^\| \*\*{fact}\*\* \| \S", page, re.MULTILINE), fact
    for parameter in registry.parameters(name):
        row = re.search(rf"^\| `{parameter}` \| (.*) \| (.*) \| (.*) \|$", page, re.MULTILINE)
        assert all(row.groups()), parameter


def test_a_page_has_the_numbers_of_its_row(generate):
    # results/measured/tiny-all/table3.csv, FastV: relative_retention 94.409, visual_token_share 55.034
    page = generate.method_page("fastv")
    assert "94.4% of the baseline's score with 55.0% of its visual tokens" in page
    assert "| `layer` | int | `2` | Number of layers that process all tokens" in page
    assert "https://arxiv.org/abs/2403.06764" in page


def test_all_commands_are_on_the_page_with_options_and_examples(generate):
    page = generate.command_line()
    for command in ("demo", "run", "report", "train consistency", "papers", "papers audit", "throughput serve"):
        assert f"\n## vico-eval {command}\n" in page
    assert re.search(r"^\| `--margin .*` \| .*\[default: 99\.0\] \|$", page, re.MULTILINE)
    assert "\nvico-eval demo --limit 20 --rows vico,all_compress\n" in page


def readme_rows():
    """Cells of README's table of methods by method."""
    for line in (ROOT / "README.md").read_text(encoding="utf-8").splitlines():
        if re.match(r"\| `\w+`", line):
            names, *cells = (cell.strip() for cell in line.strip("|").split("|"))
            for name in re.findall(r"`(\w+)`", names):
                yield name, cells


def test_the_readme_lists_every_method_with_its_place_models_and_golden_data(generate):
    rows = dict(readme_rows())
    assert len(rows) == len(list(readme_rows()))
    assert rows.keys() == registry.BUILT_IN.keys()
    for name, (place, models, paper, golden) in rows.items():
        assert place == registry.load(name).place
        assert models == about(name).models, name
        folder = generate.golden_folder(name)
        assert golden == "" if folder is None else f"]({folder}/README.md)" in golden, name
        source = registry.describe(name).partition("Source:")[2].partition("Differs:")[0]
        for number in re.findall(r"arxiv\.org/abs/(\S+?)\)", paper):
            assert number in source, name


def test_what_a_browser_would_load_from_elsewhere_is_found(generate):
    loads = ["https://a/b.js", "//c/d.css", "https://e/f.png", "https://unpkg.com/mermaid"]
    page = (
        '<script src="https://a/b.js"></script><link rel="stylesheet" href="//c/d.css"><img src="https://e/f.png">'
        '<pre class="mermaid"></pre><a href="https://g">a link</a><img src="own.png"><link rel="canonical" href="//h">'
    )
    assert sorted(generate.loaded_from_outside(page)) == sorted(loads)


def test_links_are_followed_from_page_to_page(generate):
    linked = generate.linked_files({"docs/reports.md": "[a](../results/measured/passes/README.md) [b](speed.md)"})
    assert linked >= {"results/measured/passes/README.md", "results/measured/passes/table-cpu.json"}
    assert "docs/speed.md" not in linked


def test_every_page_is_in_the_navigation():
    navigation = (ROOT / "mkdocs.yml").read_text(encoding="utf-8").partition("\nnav:")[2]
    pages = [path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*.md")]
    assert [page for page in pages if f": {page}\n" not in navigation] == []


def said_by_the_code():
    """Texts of the package with dots in the place of names and numbers."""
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                yield "".join(part.value if isinstance(part, ast.Constant) else "…" for part in node.values)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.value


def test_troubleshooting_quotes_messages_that_the_code_has():
    page = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
    quoted = re.findall(r"^### “(.*)”$", page, re.MULTILINE)
    assert len(quoted) > 15
    said = "\n".join(said_by_the_code())
    assert [message for message in quoted if message not in said] == []


def test_the_example_of_a_benchmark_fits_its_schemas(tmp_path):
    page = (ROOT / "docs" / "add-a-benchmark.md").read_text(encoding="utf-8")
    files = dict(re.findall(r"```yaml\n# tasks/(\S+)\n(.*?)```", page, re.DOTALL))
    own = files.pop("benchmarks.yaml")
    (tmp_path / "benchmarks.yaml").write_text((ROOT / "tasks" / "benchmarks.yaml").read_text() + "\n" + own)
    (tmp_path / "suites").mkdir()
    ((name, text),) = files.items()
    (tmp_path / name).write_text(text)
    suite = load_suite("diagrams", tmp_path)
    assert [load_benchmarks(tmp_path)[each].title for each in suite.benchmarks] == ["AI2D", "IconQA"]
