"""Which model each server is asked for, and keys: sent to servers, and never written."""

import pytest

MODELS = {"a": ("big", "small"), "b": ("org/x=1", "big"), "c": ("big",)}
PAIR = ["--compare", "on=http://a", "--compare", "off=http://b"]
KEY = "sk-Zq7/x+Y_8.~Zq7=="


def test_each_server_is_asked_for_its_own_model(run, start_server, make_server):
    servers = [start_server(make_server(name=name, models=models)) for name, models in MODELS.items()]
    pairs = [part for server in servers for part in ("--compare", f"{server.name}={server.url}")]
    status, _, summary = run(*pairs, "--model", "big", "--model", "b=org/x=1", "--requests", 2)
    assert status == 0
    assert [server["model"] for server in summary["servers"]] == ["big", "org/x=1", "big"]
    assert [{body["model"] for body in server.bodies} for server in servers] == [{"big"}, {"org/x=1"}, {"big"}]


def test_a_key_is_sent_and_never_written(run, start_server, make_server, monkeypatch, tmp_path):
    monkeypatch.setenv("VICO_TEST_KEY", KEY)
    server = start_server(make_server(key=KEY))
    status, err, summary = run(server.url, "--api-key-env", "VICO_TEST_KEY", "--requests", 2)
    assert (status, summary["is_complete"]) == (0, True)
    written = err + "".join(path.read_text() for path in (tmp_path / "out").iterdir())
    assert KEY not in written


@pytest.mark.parametrize("arguments", [[], ["--model", "tiny"]])
def test_a_wrong_key_is_said_without_the_key(run, start_server, make_server, monkeypatch, arguments):
    monkeypatch.setenv("VICO_TEST_KEY", KEY)
    server = start_server(make_server(key="another"))
    status, err, summary = run(server.url, "--api-key-env", "VICO_TEST_KEY", *arguments)
    assert (status, summary) == (1, None)
    assert "HTTP 401" in err
    assert KEY[:4] not in err


def test_a_key_that_refused_requests_repeat_is_kept_out_of_the_files(
    run, start_server, make_server, monkeypatch, tmp_path
):
    monkeypatch.setenv("VICO_TEST_KEY", KEY)
    server = make_server(key=KEY)
    start_server(server)
    stream = server.stream

    def revoke(body, fault):
        if len(server.bodies) == 12:
            server.key = "another"
        return stream(body, fault)

    server.stream = revoke
    status, err, summary = run(server.url, "--api-key-env", "VICO_TEST_KEY")
    assert status == 1
    assert sum(cell["failures"].get("HTTP 401", {"count": 0})["count"] for cell in summary["cells"]) >= 8
    assert "wrong: Bearer (key)" in err  # where the words are cut, half a key would stay
    written = err + "".join(path.read_text() for path in (tmp_path / "out").iterdir())
    assert KEY[:4] not in written


@pytest.mark.parametrize("key", ["", "two words", "secret\n", "clé"])
def test_a_variable_without_a_key_is_said_without_its_words(run, monkeypatch, key):
    monkeypatch.setenv("VICO_TEST_KEY", key)
    status, err, _ = run("http://127.0.0.1:9", "--api-key-env", "VICO_TEST_KEY")
    assert status == 1
    assert "VICO_TEST_KEY" in err
    assert not key or key.strip() not in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([*PAIR, "--model", "c=m"], "unknown server 'c' in --model c=m; known are on, off"),
        ([*PAIR, "--model", "on=m", "--model", "on=n"], "--model got 'on=n'; expected one MODEL"),
        ([*PAIR, "--model", "on="], "--model got 'on='"),
        (["http://a", "--model", "a", "--model", "b"], "--model got 'b'"),
        (["http://a", "--api-key-env", "VICO_NONE"], "'VICO_NONE', which is not set"),
    ],
)
def test_what_names_no_model_and_no_key_is_said(run, arguments, message):
    status, err, _ = run(*arguments)
    assert status == 1
    assert message in err
