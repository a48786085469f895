"""`--engine` and `--server`: what each row is started with, and what is refused before anything is."""

import pytest

from vico_eval.commands.work.options import RunOptions, parse_servers
from vico_eval.errors import ConfigError

SERVERS = "base=http://a:8000,vico=http://b:8000/http://c:8000"
ROWS = ("--rows", "vanilla,vico,random,vanilla_vir", "--device", "cpu", "--limit", 3, "--dry-run")


def commands(err):
    """By row, the command of its own."""
    found = {}
    for line in err.splitlines():
        if "-m lmms_eval" in line:
            folder = line.split("--output_path ")[1].split()[0]
            found[folder.rpartition("/")[2]] = line
    return found


def test_each_row_goes_to_the_server_of_its_weights(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    status, _, err = run("run", "tiny", *ROWS, "--engine", "vllm", "--server", SERVERS)
    assert status == 0, err
    found = commands(err)
    assert all("engine=vllm" in command for command in found.values())
    assert "server=http://a:8000 " in found["vanilla"]
    # It decodes by its own weights, whatever it borrows.
    assert "server=http://a:8000 " in found["vanilla_vir"]
    for name in ("vico", "random-seed0"):
        assert "server=http://b:8000/http://c:8000 " in found[name]
    status, _, err = run("run", "tiny", *ROWS)
    assert "engine" not in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--server", SERVERS), "give --engine vllm too"),
        (("--engine", "sglang"), "--engine is 'sglang'; expected transformers or vllm"),
        (("--engine", "vllm", "--server", "http://a:8000"), "they have several checkpoints: vico-tiny"),
        (("--engine", "vllm", "--server", "base=http://a:8000"), "--server names none for vico weights"),
        (("--engine", "vllm", "--server", "base=http://a:8000,base=http://b"), "expected an address, or one for each"),
        (("--engine", "vllm", "--server", "base=a,vico=b"), "no server answers at"),
        (("--engine", "vllm"), "vllm is not installed here"),
        (("--model-args", "engine=vllm"), "give it as --engine vllm"),
        (("--model-args", "server=http://a"), "give it as --server http://a"),
    ],
)
def test_what_cannot_be_is_refused(run, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    status, out, err = run("run", "tiny", *ROWS, *arguments)
    assert status != 0
    assert message in " ".join(err.split())
    assert out == ""


def test_methods_in_the_decoder_are_refused_by_name(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    asked = ("run", "tiny", "--rows", "vico,fastv", "--device", "cpu", "--dry-run", "--engine", "vllm")
    status, _, err = run(*asked, "--server", SERVERS)
    assert status != 0
    assert "row fastv can't be run with these arguments: method 'fastv' takes tokens out between" in " ".join(
        err.split()
    )


def test_servers_by_kind_of_weights():
    assert parse_servers("") == {}
    assert parse_servers("http://a:8000?x=1") == {"all": "http://a:8000?x=1"}
    assert parse_servers("full=http://a,pvtc=b.txt") == {"full": "http://a", "pvtc": "b.txt"}
    with pytest.raises(ConfigError, match="expected an address, or one for each kind"):
        parse_servers("base=http://a,other=http://b")
    assert RunOptions(engine="vllm", servers={"all": "http://a"}).servers == {"all": "http://a"}
