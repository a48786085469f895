"""Digest of the code that scores a task: its entry functions, and all functions of the toolkit that these reach.

A toolkit's release changes a few scorers among hundreds, and two rows are comparable if theirs are unchanged. Therefore
only the reached code is included, without comments, docstrings and layout.
"""

from __future__ import annotations

import ast
import inspect
from collections.abc import Callable, Iterable, Iterator
from functools import cache, partial
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from vico_eval.digests import text_digest

_EVERYTHING = "*"
"""Stands for the whole file instead of a name."""


class _Symbol(NamedTuple):
    """A top-level definition, or a whole file."""

    file: Path
    name: str


class Toolkit(NamedTuple):
    """The toolkit whose code is followed; other packages are identified by their versions."""

    package: Path
    """The toolkit's folder."""

    parts: tuple[str, ...]
    """Its folders that contain scorers."""

    @classmethod
    def of(cls, module: ModuleType, *parts: str) -> Toolkit:
        """Return the toolkit of a package."""
        return cls(Path(module.__file__ or "").parent.resolve(), parts)

    def file_of(self, place: Path | None) -> Path | None:
        """Return the file of the module at a place (without suffix); None if it isn't in the scorers' folders."""
        if place is None or not any(place.is_relative_to(self.package / part) for part in self.parts):
            return None
        files = (place.with_name(f"{place.name}.py"), place / "__init__.py")
        return next((file for file in files if file.is_file()), None)

    def place_of(self, module: str) -> Path | None:
        """Return a module's place from its full name; None for other packages."""
        package, *names = module.split(".")
        return self.package.joinpath(*names) if package == self.package.name else None


def scorer_digest(functions: Iterable[Callable[..., Any]], toolkit: Toolkit, settings: object = None) -> str:
    """Return the first 16 hex digits of a SHA-256 over a task's scoring code and its settings.

    Args:
        functions: the functions that the toolkit calls to score the task.
        toolkit: the toolkit.
        settings: the scorer's settings, as plain values.
    """
    begin = [_symbol_of(function) for function in functions]
    texts = sorted({_text(symbol) for symbol in _reached(begin, toolkit)})
    return text_digest("\n".join([repr(settings), *texts]))


def _symbol_of(function: Callable[..., Any]) -> _Symbol:
    """Return where a function is defined; its whole file if it has no name there, like a lambda."""
    while isinstance(function, partial):
        function = function.func
    function = inspect.unwrap(function)
    file = Path(inspect.getsourcefile(function) or "").resolve()
    name = function.__qualname__.partition(".")[0]
    return _Symbol(file, name if name in _definitions(file) else _EVERYTHING)


def _reached(begin: Iterable[_Symbol], toolkit: Toolkit) -> set[_Symbol]:
    """Return the symbols `begin` and all that they reach in their files and in the toolkit."""
    found: set[_Symbol] = set()
    left = list(begin)
    while left:
        symbol = left.pop()
        if symbol not in found:
            found.add(symbol)
            left += _mentioned(symbol, toolkit)
    return found


def _mentioned(symbol: _Symbol, toolkit: Toolkit) -> Iterator[_Symbol]:
    definitions, imports = _definitions(symbol.file), _imports(symbol.file, toolkit)
    for node in _nodes(symbol):
        for inner in ast.walk(node):
            if isinstance(inner, ast.Name) and inner.id != symbol.name:
                if inner.id in definitions:
                    yield _Symbol(symbol.file, inner.id)
                yield from imports.get(inner.id, ())
            elif isinstance(inner, ast.Import | ast.ImportFrom):  # inside a function
                for symbols in _imported(inner, symbol.file, toolkit).values():
                    yield from symbols


def _nodes(symbol: _Symbol) -> list[ast.stmt]:
    return _tree(symbol.file).body if symbol.name == _EVERYTHING else _definitions(symbol.file)[symbol.name]


def _text(symbol: _Symbol) -> str:
    """Return the symbol's code without docstrings, as unparsed by Python."""
    return "\n".join(ast.unparse(node) for node in _nodes(symbol))


@cache
def _tree(file: Path) -> ast.Module:
    """Return a file's code without docstrings; nothing if it isn't Python."""
    try:
        tree = ast.parse(file.read_bytes())
    except (OSError, SyntaxError, ValueError):
        return ast.Module(body=[], type_ignores=[])
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            if ast.get_docstring(node, clean=False) is not None:
                node.body = node.body[1:]
            node.body = [one for one in node.body if not _is_a_list_of_data(one)] or [ast.Pass()]
    return tree


def _is_a_list_of_data(node: ast.stmt) -> bool:
    """Return whether a statement is VLMEvalKit's table of a class's data sets, which releases extend."""
    targets = node.targets if isinstance(node, ast.Assign) else []
    return any(isinstance(target, ast.Name) and target.id.startswith("DATASET_") for target in targets)


@cache
def _definitions(file: Path) -> dict[str, list[ast.stmt]]:
    """Return the top-level statements of a file by the names that they define."""
    found: dict[str, list[ast.stmt]] = {}
    for node in _tree(file).body:
        for name in _names(node):
            found.setdefault(name, []).append(node)
    return found


def _names(node: ast.stmt) -> set[str]:
    """Return the names that a top-level statement assigns."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return {node.name}
    if isinstance(node, ast.Import | ast.ImportFrom):
        return set()
    stored = (inner for inner in ast.walk(node) if isinstance(inner, ast.Name) and isinstance(inner.ctx, ast.Store))
    return {inner.id for inner in stored}


@cache
def _imports(file: Path, toolkit: Toolkit) -> dict[str, list[_Symbol]]:
    """Return what a file's top-level imports bring from the toolkit, by local name."""
    found: dict[str, list[_Symbol]] = {}
    for node in _tree(file).body:
        inner = [node] if isinstance(node, ast.Import | ast.ImportFrom) else []
        if isinstance(node, ast.Try | ast.If):
            inner = [one for one in ast.walk(node) if isinstance(one, ast.Import | ast.ImportFrom)]
        for one in inner:
            for name, symbols in _imported(one, file, toolkit).items():
                found.setdefault(name, []).extend(symbols)
    return found


def _imported(node: ast.Import | ast.ImportFrom, file: Path, toolkit: Toolkit) -> dict[str, list[_Symbol]]:
    """Return what an import brings from the toolkit, by local name; `*` brings all of a file."""
    found: dict[str, list[_Symbol]] = {}
    if isinstance(node, ast.Import):
        for alias in node.names:
            module = toolkit.file_of(toolkit.place_of(alias.name))
            if module is not None:
                found[alias.asname or alias.name.partition(".")[0]] = [_Symbol(module, _EVERYTHING)]
        return found
    folder = file.parent
    for _ in range(node.level - 1):
        folder = folder.parent
    place = folder.joinpath(*(node.module or "").split(".")) if node.level else toolkit.place_of(node.module or "")
    module = toolkit.file_of(place)
    for alias in node.names:
        name = alias.asname or alias.name
        own = None if place is None else toolkit.file_of(place / alias.name)
        if own is not None:
            found[name] = [_Symbol(own, _EVERYTHING)]
        elif module is not None and alias.name == "*":
            found |= {one: [_Symbol(module, one)] for one in _definitions(module)}
        elif module is not None and alias.name in _definitions(module):
            found[name] = [_Symbol(module, alias.name)]
        elif module is not None:  # its own imports
            found[name] = _imports(module, toolkit).get(alias.name, []) if module != file else []
    return found
