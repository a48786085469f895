"""Methods of other packages: the documentation's example, installed beside this package as pip would put it."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ASK = """
import importlib.util, sys
from PIL import Image
import vico_eval
from vico_eval.engine.requests import GenerationSettings, ImageInput, Message, Request, Text

method, arguments = "every_other+newest", {"num_keep": 5}
picture = Image.new("RGB", (112, 56))
model = vico_eval.load(sys.argv[1], method=method, device="cpu", **arguments)
account = model.ask("Which?", images=[picture], max_new_tokens=2).account
assert account.visual_tokens_before_selection == 48, account  # two tiles and a thumbnail of 16
assert account.visual_tokens_per_layer == (24, 5, 5, 5), account

spec = importlib.util.spec_from_file_location("toy_family", sys.argv[2])
toy = importlib.util.module_from_spec(spec)
spec.loader.exec_module(toy)
message = Message("user", (ImageInput(picture), Text("Which?")))
request = Request("a/b/0", (message,), GenerationSettings(max_new_tokens=2))
account = toy.toy_engine(method, arguments).answer([request])[0].account
assert account.visual_tokens_per_layer == (25, 5, 5, 5), account  # of 7 x 7
"""


@pytest.fixture
def install(tmp_path):
    """Puts modules and the entry points of one distribution into a folder on the path; what runs there."""

    def make(modules, entry_points):
        for name, source in modules.items():
            (tmp_path / f"{name}.py").write_text(source)
        info = tmp_path / "even_tokens-0.1.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: even-tokens\nVersion: 0.1\n")
        (info / "entry_points.txt").write_text(f"[vico_eval.methods]\n{entry_points}\n")
        path = os.pathsep.join([str(tmp_path), str(ROOT)])

        def run(*arguments):
            return subprocess.run(
                [sys.executable, *map(str, arguments)],
                check=False,
                capture_output=True,
                text=True,
                env=os.environ | {"PYTHONPATH": path},
                cwd=tmp_path,
            )

        return run

    return make


def example():
    """The documentation's module and the entry points of its pyproject.toml."""
    text = (ROOT / "docs" / "add-a-method.md").read_text(encoding="utf-8")
    source = re.search(r'```python\n("""Every other.*?)```', text, re.DOTALL).group(1)
    points = re.search(r'entry-points\."vico_eval\.methods"\]\n(.*?)```', text, re.DOTALL).group(1)
    return source, points.replace('"', "")


def test_the_example_is_listed_and_runs_on_both_families(install, untrained):
    source, points = example()
    assert len([line for line in source.splitlines() if line.strip()]) <= 40
    run = install({"even_tokens": source}, points)
    listed = run("-m", "vico_eval", "methods")
    assert re.search(r"^every_other +selection +any ", listed.stdout, re.MULTILINE), listed.stdout + listed.stderr
    asked = run("-c", ASK, untrained / "base", ROOT / "tests" / "toy_family.py")
    assert asked.returncode == 0, asked.stderr


@pytest.mark.parametrize(
    ("points", "message"),
    [
        ("vico = even_tokens:Mine", "two methods are named 'vico': vico_eval.methods.vico:ViCO and even_tokens:Mine"),
        ("mine = even_tokens:Missing", "method 'mine' can't be loaded from 'even_tokens:Missing'"),
        ("mine = no_such_module:Mine", "method 'mine' can't be loaded from 'no_such_module:Mine'"),
        ("mine = even_tokens:Mine", "'even_tokens:Mine', which is not a part of a method; expected a subclass of"),
    ],
)
def test_an_entry_point_that_is_no_method_is_named(install, points, message):
    run = install({"even_tokens": "class Mine: ..."}, points)
    found = run("-m", "vico_eval", "methods", "mine")
    assert found.returncode != 0
    assert message in " ".join(found.stderr.split())
    assert "Traceback" not in found.stderr


def test_a_stray_file_beside_the_methods_is_no_method():
    from vico_eval.methods import registry

    files = {file.stem for file in (ROOT / "vico_eval" / "methods").glob("*.py")}
    others = {"registry", "arguments", "about", "__init__"}
    assert others <= files
    assert {place.partition(":")[0].rpartition(".")[2] for place in registry.BUILT_IN.values()} == files - others
