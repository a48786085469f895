"""Where the data that ships with the package lies.

`tasks`, `models` and `results` stand at the top of the repository, where people look for them. A wheel carries copies
under `vico_eval/_data`; an editable install reads the repository itself.
"""

from pathlib import Path

from vico_eval.errors import ConfigError

_PACKAGE = Path(__file__).resolve().parent


def data_dir(package: Path = _PACKAGE) -> Path:
    """The folder that holds `tasks`, `models` and `results`, for a package installed at `package`."""
    packed = package / "_data"
    return packed if packed.is_dir() else package.parent


def user_path(text: str) -> Path:
    """A path as a user wrote it; `~` is a home where there is one."""
    try:
        return Path(text).expanduser()
    except RuntimeError:  # of nobody here
        return Path(text)


def is_folder(path: Path) -> bool:
    """Whether there is a folder; False also for what can't be a path, which `Path.is_dir` raises for."""
    try:
        return path.is_dir()
    except (OSError, ValueError):
        return False


def free_path(start: Path) -> Path:
    """The first of `start` with 1, 2, ... behind its name that does not exist: where something is set aside."""
    number = 1
    while (path := start.with_name(f"{start.name}{number}")).exists():
        number += 1
    return path


def tasks_dir() -> Path:
    """lmms-eval task files that upstream lacks; pass it to lmms-eval as `--include_path`."""
    return data_dir() / "tasks"


def models_dir() -> Path:
    """Model cards (one YAML file a system) and the built-in checkpoints."""
    return data_dir() / "models"


def results_dir() -> Path:
    """`published/`: the papers' numbers. `measured/`: ours, each with what produced it."""
    return data_dir() / "results"


def example_image() -> Path:
    """A page of the built-in benchmark, 224 x 168 px, to try something on."""
    return tasks_dir() / "examples" / "page.png"


def folder_argument(name: str, value: object) -> Path | None:
    """The folder that an argument names; None for nothing.

    Raises:
        ConfigError: lmms-eval has read it as a number or a truth value, or it is blank.
    """
    if value is None or value == "None":
        return None
    if isinstance(value, str | Path) and str(value).strip():
        return Path(value)
    raise ConfigError(f"{name} is {value!r}; expected a folder. One of that name is written ./{value}.")
