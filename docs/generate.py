"""Hooks of MkDocs: the pages that are made from the code, and links that work on the site as well as in the repository.

Made at build time and never committed: a page for each method (from the registry, docstrings and model cards), the
command line (from the commands themselves), the changelog, and a home page that is the README. Files of the repository
that a page links to, such as the records of results/, become part of the site.
"""

from __future__ import annotations

import ast
import html
import inspect
import io
import posixpath
import re
from collections.abc import Iterator
from dataclasses import MISSING, Field, fields
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib import mathtext
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from typer.main import get_command

from vico_eval.cards import Card, load_cards
from vico_eval.cli import app
from vico_eval.harnesses.lmms_eval.kinds import KINDS
from vico_eval.methods import registry
from vico_eval.methods.about import about
from vico_eval.methods.arguments import default_text
from vico_eval.methods.interface import PLACES
from vico_eval.paths import models_dir

ROOT = Path(__file__).resolve().parent.parent
MEASURED = "results/measured/tiny-all/table3"
RENAMED = {"README.md": "index.md", "CHANGELOG.md": "changelog.md"}
"""Pages of the site that stand elsewhere in the repository."""

GOLDEN = {
    **dict.fromkeys(("vico", "all_compress", "vanilla"), "internvl_flash"),
    **dict.fromkeys(("rvtc_edge", "rvtc_area", "rvtc_ratio", "pvtc"), "internvl_x"),
}
"""Folder of tests/golden that checks a method, where it is not named after the method."""


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """List the methods' pages, by place, under the entry of the navigation that is called Methods."""
    for entry in config.nav or ():
        if "Methods" in entry:
            by_place = {place: [name for name in registry.BUILT_IN if _place(name) == place] for place in PLACES}
            entry["Methods"] = [
                {"Overview": "methods/index.md"},
                *({place.capitalize(): [f"methods/{name}.md" for name in sorted(by_place[place])]} for place in PLACES),
            ]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages made from the code, and whatever of the repository the pages link to."""
    made = {"docs/cli.md": command_line()}
    made |= {f"docs/methods/{name}.md": method_page(name) for name in registry.BUILT_IN}
    for path, text in made.items():
        files.append(File.generated(config, site_path(path), content=text))
    pages = {f"docs/{file.src_uri}": file.content_string for file in files if file.is_documentation_page()}
    for name in RENAMED:
        files.append(File.generated(config, site_path(name), abs_src_path=str(ROOT / name)))
        pages[name] = (ROOT / name).read_text(encoding="utf-8")
    for path in sorted(linked_files(pages)):
        files.append(File.generated(config, site_path(path), abs_src_path=str(ROOT / path)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turn links between files of the repository into links between pages of the site, and formulas into pictures."""
    shown = page.file.src_uri
    renamed = {site: repository for repository, site in RENAMED.items()}
    own = renamed.get(shown) or (shown if (ROOT / shown).is_file() else f"docs/{shown}")

    def link(found: re.Match[str]) -> str:
        target = _target(own, found["path"])
        there = site_path(target)
        if files.get_file_from_path(there) is None:
            return found[0]
        return f"]({posixpath.relpath(there, posixpath.dirname(shown) or '.')}{found['anchor'] or ''})"

    markdown = LINK.sub(link, markdown.replace("<!-- methods -->", overview()))
    return re.sub(r"```math\n(.*?)```", lambda found: formula(found[1]), markdown, flags=re.S)


def on_post_page(output: str, page: Page, config: MkDocsConfig) -> str:
    """Raises PluginError if a page would load anything from another host while it is read."""
    if outside := list(loaded_from_outside(output)):
        raise PluginError(f"{page.file.src_uri} loads {', '.join(outside)}; expected nothing from another host.")
    return output


def formula(tex: str) -> str:
    """A formula as an SVG picture in the colour of the text; MathML needs a font that not every reader has."""
    drawn = io.StringIO()
    line = " ".join(tex.split())
    mathtext.math_to_image(f"${line}$", drawn, format="svg")
    written = drawn.getvalue()
    picture = written[written.index("<svg ") :].replace("<svg", f'<svg role="img" aria-label="{html.escape(line)}"', 1)
    picture = re.sub(r"<metadata>.*?</metadata>", "", picture, flags=re.S).replace("#000000", "currentColor")
    return f'<div style="text-align: center; zoom: 1.4">{" ".join(picture.split())}</div>'


LINK = re.compile(r"\]\((?P<path>[^)#\s:]+)(?P<anchor>#[^)\s]*)?\)")
"""A Markdown link to a file; addresses have a colon."""


def site_path(repository_path: str) -> str:
    """Where a file of the repository stands on the site."""
    return RENAMED.get(repository_path, repository_path.removeprefix("docs/"))


def _target(page: str, link: str) -> str:
    """The file of the repository that a page of it links to."""
    return posixpath.normpath(posixpath.join(posixpath.dirname(page), link))


def linked_files(pages: dict[str, str]) -> set[str]:
    """Files outside docs/ that pages link to, and those that linked Markdown files link to in turn.

    Args:
        pages: text by path in the repository.
    """
    found: set[str] = set()
    waiting = list(pages.items())
    while waiting:
        page, text = waiting.pop()
        targets = {_target(page, link["path"]) for link in LINK.finditer(text)}
        for path in sorted(targets - found - pages.keys()):
            if not path.startswith(("docs/", "../")) and (ROOT / path).is_file():
                found.add(path)
                if path.endswith(".md"):
                    waiting.append((path, (ROOT / path).read_text(encoding="utf-8")))
    return found


class _Loads(HTMLParser):
    """Collects what a page loads by itself; links that a reader may click don't count."""

    def __init__(self) -> None:
        super().__init__()
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        loads = [given.get("src"), given.get("srcset")]
        if tag == "link" and given.get("rel") != "canonical":
            loads.append(given.get("href"))
        self.addresses += [address for address in loads if address]
        # Material fetches a library from a CDN to draw these.
        if "mermaid" in (given.get("class") or "").split():
            self.addresses.append("https://unpkg.com/mermaid")


def loaded_from_outside(page: str) -> Iterator[str]:
    """Addresses on other hosts that a browser loads with a page."""
    parser = _Loads()
    parser.feed(page)
    yield from (address for address in parser.addresses if re.match(r"(https?:)?//", address))


def _place(name: str) -> str:
    return registry.load(name).place


def _sections(name: str) -> dict[str, str]:
    """A method's docstring in pieces: `summary`, then Place, Needs, Source and Differs as far as it has them."""
    summary, _, rest = registry.describe(name).partition("\n\n")
    pieces = re.split(r"^(Place|Models|Needs|Source|Differs):\s*", rest, flags=re.M)
    named = dict(zip(pieces[1::2], (re.sub(r"\s+", " ", piece).strip() for piece in pieces[2::2]), strict=True))
    return {"summary": re.sub(r"\s+", " ", summary), **{key: _marked_up(text) for key, text in named.items()}}


def _marked_up(text: str) -> str:
    """A piece of a docstring as Markdown: links to papers, and arguments set as code."""
    text = re.sub(r"arXiv (\d{4}\.\d{5})", r"[arXiv \1](https://arxiv.org/abs/\1)", text[:1].upper() + text[1:])
    outside = text.split("`")
    outside[::2] = (re.sub(r"\b[a-z]+(?:_[a-z]+)+=?|\b[a-z]+=", r"`\g<0>`", piece) for piece in outside[::2])
    return "`".join(outside)


def _title(name: str) -> str:
    return _sections(name)["summary"].partition(":")[0]


def _card(name: str) -> Card | None:
    """The method's row of `vico-eval demo --rows all`, if it has one."""
    return load_cards(models_dir()).get(name)


def golden_folder(name: str) -> str | None:
    """Where reference values made by the method's released code are, or None where there is none to run."""
    folder = f"tests/golden/{GOLDEN.get(name, name)}"
    return folder if (ROOT / folder).is_dir() else None


def _measured() -> pd.DataFrame:
    """Retention and visual tokens on the built-in benchmark, percent, a row a system."""
    frame = pd.read_csv(ROOT / f"{MEASURED}.csv")
    wanted = frame[(frame["benchmark"] == "Avg.") & frame["metric"].isin(["relative_retention", "visual_token_share"])]
    return wanted.pivot_table(index="system", columns="metric", values="value", dropna=False)


def overview() -> str:
    """A table of all methods for each place."""
    lines: list[str] = []
    for place in PLACES:
        names = sorted(name for name in registry.BUILT_IN if _place(name) == place)
        lines += [
            f"## {place.capitalize()}",
            "",
            "| method | what it does | models | golden data |",
            "|:--|:--|:--|:--|",
        ]
        for name in names:
            folder = golden_folder(name)
            golden = f"[{folder.rpartition('/')[2]}](../../{folder}/README.md)" if folder else ""
            summary = _marked_up(_sections(name)["summary"].partition(": ")[2])
            lines.append(f"| [`{name}`]({name}.md) | {summary} | {about(name).models} | {golden} |")
        lines.append("")
    return "\n".join(lines)


def method_page(name: str) -> str:
    """A method's page: where it acts and comes from, what differs, its parameters, golden data and functions."""
    sections, card, folder = _sections(name), _card(name), golden_folder(name)
    facts = {"Place": sections["Place"], "Source": sections["Source"], "Models": about(name).models}
    if "Needs" in sections:
        facts["Needs"] = sections["Needs"]
    if card is not None:
        facts["Weights"] = {"base": "those of the base model", "vico": "trained by ViCO (Flash)"}.get(
            card.weights, card.weights
        )
        facts |= _result(card)
    facts["Golden data"] = (
        f"[{folder}](../../{folder}/README.md)" if folder else "none: no released code to compare with"
    )
    module = registry.BUILT_IN[name].partition(":")[0]
    facts["Code"] = f"`{module.replace('.', '/')}.py`"
    summary = _marked_up(sections["summary"].partition(": ")[2])
    models = ", ".join(f"`{kind.model_of(name)}`" for kind in KINDS if name in kind.methods)
    lines = [f"# {_title(name)}", "", summary, "", f"| Name | `{name}`; in lmms-eval {models} |", "|:--|:--|"]
    lines += [f"| **{key}** | {text} |" for key, text in facts.items()]
    if "Differs" in sections:
        lines += ["", "## What differs from the source", "", sections["Differs"]]
    lines += ["", "## Parameters", "", *_parameter_table(name)]
    if functions := _public_functions(module):
        lines += ["", "## Functions", ""]
        lines += [f"::: {module}.{function}\n    options: {{heading_level: 3}}\n" for function in functions]
    return "\n".join(lines) + "\n"


def _result(card: Card) -> dict[str, str]:
    measured = _measured()
    if card.name not in measured.index:
        return {}
    own = measured.loc[card.name]
    retention, share = own["relative_retention"], own["visual_token_share"]
    said = f"{retention:.1f}% of the baseline's score with {share:.1f}% of its visual tokens"
    return {f"Built-in benchmark, row “{card.title}”": f"{said} ([table](../../{MEASURED}.md))"}


def _parameter_table(name: str) -> Iterator[str]:
    parameters = registry.parameters(name)
    if not parameters:
        yield "None."
        return
    words = _field_docstrings(registry.load(name).Config)
    yield from ("| parameter | type | default | meaning |", "|:--|:--|:--|:--|")
    for argument, field in parameters.items():
        kind = str(field.type).replace("|", "or")
        yield f"| `{argument}` | {kind} | {_default(field)} | {words.get(field.name, '')} |"


def _default(field: Field[Any]) -> str:
    return "required" if field.default is MISSING else f"`{default_text(field)}`"


def _field_docstrings(config: type) -> dict[str, str]:
    """The text under each field of a dataclass and its bases, by the field's name."""
    words: dict[str, str] = {}
    for part in reversed(config.__mro__):
        if part is object or not fields(config):
            continue
        (body,) = ast.parse(inspect.cleandoc(inspect.getsource(part))).body
        assert isinstance(body, ast.ClassDef)
        for field, text in zip(body.body, body.body[1:], strict=False):
            if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant):
                words[ast.unparse(field.target)] = re.sub(r"\s+", " ", str(text.value.value)).strip()
    return words


def _public_functions(module: str) -> list[str]:
    tree = ast.parse((ROOT / f"{module.replace('.', '/')}.py").read_text(encoding="utf-8"))
    return [node.name for node in tree.body if isinstance(node, ast.FunctionDef) and not node.name.startswith("_")]


def command_line() -> str:
    """The page of all commands with their options."""
    lines = ["# Command line", "", "Generated from the commands. Exit status: 0 done, 1 failed, 2 wrong usage.", ""]
    for name, command in _commands(get_command(app), "vico-eval"):
        lines += [f"## {name}", "", *_help(command), "", *_options(command, name), ""]
    return "\n".join(lines)


def _commands(command: Any, name: str) -> Iterator[tuple[str, Any]]:
    if not hasattr(command, "commands"):
        yield name, command
        return
    if command.invoke_without_command:
        yield name, command
    for own, further in command.commands.items():
        yield from _commands(further, f"{name} {own}")


def _help(command: Any) -> Iterator[str]:
    """A command's help: paragraphs, and what stands behind a form feed mark as it is."""
    for paragraph in inspect.cleandoc(command.help or "").split("\n\n"):
        if paragraph.startswith("\b"):
            title, *shown = paragraph.removeprefix("\b").strip("\n").splitlines()
            yield from (title, "", "```bash", *(line.strip() for line in shown), "```", "")
        else:
            yield from (paragraph, "")


def _options(command: Any, name: str) -> Iterator[str]:
    """What a command takes, as its own help says it, as a table."""
    context = command.context_class(command, info_name=name)
    records = [record for each in command.params if (record := each.get_help_record(context)) is not None]
    if records:
        yield from ("| option | meaning |", "|:--|:--|")
    for written, words in records:
        shown = re.sub(r"\s+", " ", words).replace("|", "\\|").replace("<", "&lt;")
        yield f"| `{written}` | {shown} |"
