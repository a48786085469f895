"""Wrong command lines: each ends with 1 or 2, says the option and what it got, and leaves nothing behind."""

import errno
import json
import os
import subprocess
import sys

import pytest

from vico_eval.cli import main
from vico_eval.errors import ConfigError
from vico_eval.paths import models_dir
from vico_eval.yaml_files import read_yaml

HUGE = "99999999999999999999"
LONG = 5000 * "x"
SERVE = ["throughput", "serve", "http://127.0.0.1:9", "--tokenizer", "vico-tiny"]
TABLE3 = ["run", "vico-table3", "--dry-run", "--checkpoint"]


@pytest.fixture
def wrong(run, tmp_path, monkeypatch):
    """Runs a command in a folder with a few files that no option takes: exit status and stderr, on one line."""
    for folder in ("empty", "nested", "zero"):
        (tmp_path / folder).mkdir()
    (tmp_path / "binary.yaml").write_bytes(bytes(range(256)))
    (tmp_path / "nested" / "config.json").write_text(100_000 * "[")
    values = json.loads((models_dir() / "vico-tiny" / "config.json").read_text()) | {"downsample_ratio": 0}
    (tmp_path / "zero" / "config.json").write_text(json.dumps(values))
    before = sorted(tmp_path.rglob("*"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("vico_eval.commands.work.starting.Subprocess", lambda *_: pytest.fail("lmms-eval was started"))

    def command(*arguments, may_leave=()):
        status, out, err = run(*arguments)
        assert out == ""
        assert "Traceback" not in err
        left = {path.relative_to(tmp_path).parts[0] for path in sorted(tmp_path.rglob("*")) if path not in before}
        assert left <= set(may_leave)
        return status, " ".join(err.split())

    return command


@pytest.mark.parametrize(
    "arguments",
    [
        ["run", "tiny", "--limit", HUGE],
        ["run", "tiny", "--limit", "0"],
        ["run", "tiny", "--batch-size", "1000000000000"],
        ["run", "tiny", "--batch-size", HUGE],
        ["run", "tiny", "--processes", "1000000"],
        ["run", "tiny", "--jobs", "100000000"],
        ["run", "tiny", "--seeds", HUGE],
        ["demo", "--limit", HUGE],
        ["demo", "--jobs", HUGE],
        ["demo", "--seeds", "-1"],
        ["vlmeval", "run", "--data", "a", "--pretrained", "b", "--method", "vico", "--limit", HUGE],
        [*SERVE, "--requests", HUGE],
        [*SERVE, "--rounds", HUGE],
        [*SERVE, "--warmup", HUGE],
        [*SERVE, "--max-tokens", HUGE],
        [*SERVE, "--timeout", "nan"],
        [*SERVE, "--timeout", "inf"],
        [*SERVE, "--seconds", "1e999"],
        [*SERVE, "--seconds", "-1"],
        [*SERVE, "--requests", "1", "--concurrency", "100000000"],
        ["throughput", "local", "--rounds", HUGE],
        ["throughput", "local", "--minutes", "nan"],
        ["throughput", "local", "--minutes", "inf"],
        ["throughput", "local", "--batch-size", "1000000000000"],
        ["throughput", "local", "--threads", "0"],
    ],
)
def test_a_number_out_of_reach_is_wrong_usage(wrong, arguments):
    status, err = wrong(*arguments)
    assert status == 2
    assert f"Invalid value for '{arguments[-2]}'" in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "nope"], "unknown suite 'nope'"),
        (["run", ""], "unknown suite ''"),
        (["run", "tiny", "--rows", "vico,vico"], "--rows got 'vico,vico'; expected one or several names"),
        (["run", "tiny", "--rows", ""], "--rows got ''"),
        (["run", "tiny", "--rows", " , "], "--rows got ' , '"),
        (["run", "tiny", "--rows", "all,vico"], "unknown row 'all'"),
        (["run", "tiny", "--benchmark", "tiny_doc,tiny_doc"], "--benchmark got 'tiny_doc,tiny_doc'"),
        (["run", "tiny", "--benchmark", ""], "--benchmark got ''"),
        (["run", "tiny", "--benchmark", "nope"], "unknown benchmark 'nope'"),
        (["demo", "--rows", "vico,fastv,vico"], "--rows got 'vico,fastv,vico'"),
        (["report", "published"], "`vico-eval papers` prints the papers' own tables"),
        (["demo", "--table", "nope"], "unknown suite 'nope'"),
        (["demo", "--seeds", "4"], "--seeds is 4; the cards of these rows have 3 seeds"),
        (["run", "tiny", "--fixtures"], "--fixtures has no local data for Read, Doc,"),
        (["run", "internvl-x-table1", "--checkpoint", "8B", "--benchmark", "mmvet"], "MMVet can't be scored without"),
        (["run", "tiny", "--device", "cuda:99"], "--device got 'cuda:99'"),
        (["run", "tiny", "--device", "gpu"], "--device got 'gpu'"),
        (["run", "tiny", "--device", ""], "--device got ''"),
        (["run", "tiny", "--device", "meta"], "--device got 'meta'"),
        (["run", "tiny", "--device", "cpu:99"], "--device got 'cpu:99'"),
        (["run", "tiny", "--device", "mps:7"], "--device got 'mps:7'"),
        (["run", "tiny", "--model-args", "batch_size=4"], "--model-args has batch_size; give it as --batch-size 4"),
        (["run", "tiny", "--model-args", "device=cpu"], "--model-args has device; give it as --device cpu"),
        (["run", "tiny", "--model-args", "max_tiles"], "--model-args got 'max_tiles'"),
        (["run", "tiny", "--model-args", "max_tile=3"], "did you mean 'max_tiles'?"),
        (["run", "tiny", "--model-args", "max_tiles=abc"], "row vico can't be run with these arguments"),
        (["run", "tiny", "--model-args", f"max_tiles={HUGE}"], f"Got max_tiles={HUGE}; expected an integer from 1"),
        (["run", "tiny", "--model-args", "tiles=4"], "Got tiles=4; expected columns x rows"),
        (
            ["run", "tiny", "--model-args", "tiles=2x2"],
            "row single_tile can't be run with these arguments: got tiles",
        ),
        (["run", "tiny", "--rows", "vico", "--model-args", "tiles=2x2,max_tiles=6"], "Leave out max_tiles, or tiles"),
        (["run", "tiny", "--model-args", "max_tiles=nan"], "argument max_tiles is nan"),
        (["run", "tiny", "--model-args", "trust_remote_code=true"], "unknown argument 'trust_remote_code'"),
        ([*TABLE3, ""], "unknown checkpoint ''"),
        ([*TABLE3, "9B"], "unknown checkpoint '9B'"),
        ([*TABLE3, LONG], "unknown checkpoint 'xxx"),
        ([*TABLE3, "./missing"], "--checkpoint names ./missing, which is not a folder"),
        ([*TABLE3, "/missing"], "--checkpoint names /missing, which is not a folder"),
        ([*TABLE3, "~nobody-here/missing"], "--checkpoint names ~nobody-here/missing"),
        ([*TABLE3, "a/b/c"], "--checkpoint names a/b/c"),
        ([*TABLE3, "./binary.yaml"], "--checkpoint names ./binary.yaml, which is not a folder"),
        ([*TABLE3, "empty"], "empty is not a checkpoint: it has no config.json"),
        ([*TABLE3, "nested"], "config.json can't be read as JSON"),
        ([*TABLE3, "zero"], "downsample_ratio is 0; expected a share in (0, 1]"),
        ([*TABLE3, "base=vico-tiny-base,vico=./missing"], "--checkpoint names ./missing"),
        ([*TABLE3, "base=a/b,base=c/d"], "each at most once"),
        ([*TABLE3, "base=vico-tiny-base,vico=vico-tiny-base"], "'vico-tiny-base' has no low connector"),
        (["run", "tiny", "--dry-run", "--checkpoint", ""], "unknown checkpoint ''"),
    ],
)
def test_runs_that_cannot_be_are_refused_before_the_first_starts(wrong, arguments, message):
    status, err = wrong(*arguments)
    assert status == 1
    assert message in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["demo", "--limit", "1", "--out", "binary.yaml"], "Can't write into binary.yaml (File exists)"),
        (["demo", "--limit", "1", "--out", LONG], "(File name too long)"),
        (["demo", "--limit", "1", "--html", "."], "The page can't be written to .: the folder contains files"),
        ([*SERVE[:2], "http://localhost:99999", *SERVE[3:]], "no server answers at http://localhost:99999"),
        ([*SERVE, "--out", "binary.yaml"], "Can't write into binary.yaml"),
        ([*SERVE, "--out", LONG], "(File name too long)"),
        ([*SERVE, "--images", "binary.yaml"], "binary.yaml has no images"),
        ([*SERVE, "--images", LONG], "has no images"),
        ([*SERVE[:3], "--tokenizer", ""], "no tokenizer ''"),
        ([*SERVE[:3], "--tokenizer", LONG], "no tokenizer 'xxx"),
        ([*SERVE[:3], "--tokenizer", "binary.yaml"], "no tokenizer 'binary.yaml'"),
        ([*SERVE[:3], "--tokenizer", "empty"], "the tokenizer in empty can't be loaded"),
        (["throughput", "local", "--threads", "100000"], "--threads got 100000; expected at most"),
        (["throughput", "local", "--name", "a/b"], "--name got 'a/b'"),
        (["throughput", "local", "--name", "../x"], "--name got '../x'"),
        (["throughput", "local", "--name", ""], "--name got ''"),
        (["throughput", "local", "--name", "a\nb"], "--name got 'a\\nb'"),
        (["throughput", "local", "--name", LONG], "--name got 'xxx"),
        (["throughput", "local", "--device", "cuda:99"], "device='cuda:99'"),
        (["throughput", "local", "--device", ""], "device=''"),
        (["throughput", "local", "--dtype", ""], "unknown dtype ''"),
        (["throughput", "local", "--methods", ""], "got methods none"),
        (["throughput", "local", "--methods", "vico,vico"], "without repetition"),
        (["throughput", "local", "--checkpoint", ""], "no checkpoint ''"),
        (["throughput", "local", "--checkpoint", LONG], "no checkpoint 'xxx"),
        (["throughput", "local", "--method-args", "keep_ratio=nan"], "keep_ratio"),
        (["route", "missing.png", "--checkpoint", "vico-tiny"], "missing.png"),
        (["route", "empty", "--checkpoint", "vico-tiny"], "empty"),
        (["route", "binary.yaml", "--checkpoint", "vico-tiny"], "binary.yaml"),
        (["route", LONG, "--checkpoint", "vico-tiny"], "xxx"),
        (["route", "a.png", "--checkpoint", "vico-tiny", "--method", "vanilla"], "method 'vanilla' has no router"),
        (["route", "a.png", "--checkpoint", "vico-tiny", "--method", ""], "unknown method ''"),
        (["route", "a.png", "--checkpoint", "vico-tiny", "--model-args", "method=vico"], "which --method sets"),
        (["methods", ""], "unknown method ''"),
        (["vlmeval", "run", "--data", ",", "--pretrained", "b", "--method", "vico"], "--data got ','"),
        (["vlmeval", "run", "--data", "A,A", "--pretrained", "b", "--method", "vico"], "--data got 'A,A'"),
    ],
)
def test_what_cannot_be_read_or_written_is_said(wrong, arguments, message):
    # Folders for what is written are made to see that they can be.
    status, err = wrong(*arguments, may_leave=("runs",))
    assert status == 1
    assert message in err


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (bytes(range(256)), "Can't read"),
        (b"a: b: c", "is not valid YAML"),
        (1000 * b"[" + 1000 * b"]", "nested too deeply"),
        (1000 * b"{a: " + 1000 * b"}", "nested too deeply"),
        (1000 * b"- ", "nested too deeply"),
        (b"a: 2026-13-01", "is not valid YAML"),
        (b"{[]: 1}", "is not valid YAML"),
        (b"{[1]: 1}", "is not valid YAML"),
        (b"a: \0", "is not valid YAML"),
        (b"!!python/object:os.system x", "is not valid YAML"),
        (b"", "does not fit"),
        (b"3", "does not fit"),
        (b"a: 0x", "does not fit"),
    ],
)
def test_a_yaml_file_of_any_content_is_an_error_that_names_it(tmp_path, content, message):
    from pydantic import TypeAdapter

    from vico_eval.cards import Card

    file = tmp_path / "card.yaml"
    file.write_bytes(content)
    with pytest.raises(ConfigError, match=rf"card\.yaml.*{message}|{message}.*card\.yaml"):
        read_yaml(TypeAdapter(Card), file)


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (
            OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "a.json"),
            "Error: No space left on device: a.json. Free",
        ),
        (OSError(errno.EROFS, os.strerror(errno.EROFS), "x"), "Error: Read-only file system: x."),
        (PermissionError(errno.EACCES, os.strerror(errno.EACCES), "x"), "Error: Permission denied: x."),
        (OSError(errno.EMFILE, os.strerror(errno.EMFILE)), "Error: Too many open files. Allow"),
        (MemoryError(), "Error: Out of memory. Close"),
    ],
)
def test_a_fault_of_the_machine_is_a_sentence(run, monkeypatch, error, message):
    def fail(name, **_):
        raise error

    monkeypatch.setattr("vico_eval.commands.work.methods.print_methods", fail)
    status, _, err = run("methods")
    assert status == 1
    assert message in err
    assert "Traceback" not in err


def test_a_fault_of_our_own_keeps_its_traceback(monkeypatch):
    def fail(name, **_):
        raise FileNotFoundError(errno.ENOENT, "gone")

    monkeypatch.setattr("vico_eval.commands.work.methods.print_methods", fail)
    with pytest.raises(FileNotFoundError):
        main(["methods"])


@pytest.mark.parametrize("words", ["[" * 100_000, "[1]", "3", '{"arguments": 1}', "\xff"])
def test_a_request_file_of_any_content_is_one_that_nobody_knows(tmp_path, words):
    from vico_eval.commands.work.plan import PlannedRun
    from vico_eval.commands.work.run_folders import unfinished

    run = PlannedRun(name="n", system="s", title="t", folder=tmp_path, cells=(), launcher=(), arguments=())
    (tmp_path / "request.json").write_bytes(words.encode("latin-1"))

    class Read:
        versions, checkpoints, written_s, cells = {}, {"n": {}}, {"n": 0.0}, {}

    assert unfinished(run, Read, lambda *_: None) == ("nobody knows what it is of", ())


def test_a_dry_run_writes_nothing(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    status, _, err = run("run", "tiny", "--limit", "1", "--rows", "vico", "--dry-run")
    assert (status, list(tmp_path.iterdir())) == (0, [])
    assert "2 runs; 18 of 18 cells to do" in err


SHELL = {
    "head": "{} methods | head -n 1",
    "closed stdout": "{} methods >&-",
    "closed stderr": "{} methods 2>&-",
    "no home": "env -u HOME {} methods",
    "ascii": "LC_ALL=C PYTHONIOENCODING=ascii {} papers audit",
    "full": "{} methods > /dev/full",
}


@pytest.mark.parametrize("case", SHELL)
def test_a_shell_of_any_kind_gets_no_traceback(case, tmp_path):
    command = SHELL[case].format(f"{sys.executable} -m vico_eval")
    done = subprocess.run(["sh", "-c", command], cwd=tmp_path, capture_output=True, text=True)
    assert "Traceback" not in done.stderr
    assert (done.returncode, "No space left on device" in done.stderr) == ((1, True) if case == "full" else (0, False))
