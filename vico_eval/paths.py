"""Locations of the data that ships with the package.

`tasks`, `models` and `results` are at the top of the repository, where people look for them. A wheel contains copies
under `vico_eval/_data`; an editable install reads them from the repository.
"""

from pathlib import Path

from vico_eval.errors import ConfigError

_PACKAGE = Path(__file__).resolve().parent


def data_dir(package: Path = _PACKAGE) -> Path:
    """The folder with `tasks`, `models` and `results` for the package installed at `package`."""
    packed = package / "_data"
    return packed if packed.is_dir() else package.parent


def user_path(text: str) -> Path:
    """The path in `text`, with `~` expanded if that home folder exists."""
    try:
        return Path(text).expanduser()
    except RuntimeError:  # no home folder, or no such user
        return Path(text)


def is_folder(path: Path) -> bool:
    """True if `path` is a folder; False also for an invalid path, for which `Path.is_dir` raises."""
    try:
        return path.is_dir()
    except (OSError, ValueError):
        return False


def free_path(start: Path) -> Path:
    """The first path of `start1`, `start2`, ... that does not exist; used to move old files aside."""
    number = 1
    while (path := start.with_name(f"{start.name}{number}")).exists():
        number += 1
    return path


def tasks_dir() -> Path:
    """The folder of our lmms-eval task files, for lmms-eval's `--include_path`."""
    return data_dir() / "tasks"


def models_dir() -> Path:
    """The folder of model cards (one YAML file per system) and built-in checkpoints."""
    return data_dir() / "models"


def results_dir() -> Path:
    """The folder of results: `published/` has the papers' numbers, `measured/` ours with their provenance."""
    return data_dir() / "results"


def example_image() -> Path:
    """A page of the built-in benchmark, 224 x 168 px, to try something on."""
    return tasks_dir() / "examples" / "page.png"


def folder_argument(name: str, value: object) -> Path | None:
    """The folder that an argument names; None if the argument is None or "None".

    Raises:
        ConfigError: the value is blank, or lmms-eval parsed it as a number or a boolean.
    """
    if value is None or value == "None":
        return None
    if isinstance(value, str | Path) and str(value).strip():
        return Path(value)
    raise ConfigError(f"{name} is {value!r}; expected a folder. For a folder of that name, pass ./{value}.")
