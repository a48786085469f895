"""vLLM in an environment of its own: its Python is started for servers and for scripts; tests run in the main one."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from vico_eval.families.internvl.checkpoint import find_checkpoint
from vico_eval.families.internvl.decoder_export import export_decoder

from .servers import VllmServer


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--vllm-python", help="Python of an environment with vLLM.")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    # Known only where pytest is given this folder, as `make test-vllm` does.
    if not config.getoption("--vllm-python", default=None):
        missing = pytest.mark.skip(reason="no Python with vLLM is given; run: make test-vllm")
        for item in items:
            if Path(__file__).parent in item.path.parents:
                item.add_marker(missing)


@pytest.fixture(scope="session")
def vllm_python(request: pytest.FixtureRequest) -> Path:
    """Python of the environment with vLLM and this package, and without lmms-eval."""
    return Path(request.config.getoption("--vllm-python"))


@pytest.fixture(scope="session")
def decoder_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Gives the folder of a built-in checkpoint's decoder."""
    folder = tmp_path_factory.mktemp("decoders")

    def export(name: str) -> Path:
        export_decoder(find_checkpoint(name), folder / name)
        return folder / name

    return export


@pytest.fixture(scope="session")
def start_server(
    vllm_python: Path, decoder_of: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[..., VllmServer]]:
    """Starts a server of a built-in checkpoint's decoder, with prompt embeddings unless other options are given, and
    waits for it. All end with the tests."""
    logs = tmp_path_factory.mktemp("vllm")
    started: list[VllmServer] = []

    def start(name: str, *options: str) -> VllmServer:
        server = VllmServer(vllm_python, decoder_of(name), logs / f"{len(started)}.log")
        if options:
            server.options = options
        started.append(server)
        server.start()
        server.wait()
        return server

    yield start
    for server in started:
        server.kill()


@pytest.fixture(scope="session")
def vllm_server(start_server: Callable[..., VllmServer]) -> VllmServer:
    """A server of `vico-tiny`'s decoder. A test that kills it starts it again."""
    return start_server("vico-tiny")


@pytest.fixture(scope="session")
def base_server(start_server: Callable[..., VllmServer]) -> VllmServer:
    """A server of `vico-tiny-base`'s decoder."""
    return start_server("vico-tiny-base")
