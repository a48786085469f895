"""Which model each server is asked for, and keys: sent to servers, and never written."""

import base64
import json
from urllib.parse import quote

import pytest
from starlette.responses import PlainTextResponse

from vico_eval.errors import ConfigError
from vico_eval.server_address import Address, Redactor

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


USER, PASSWORD, TOKEN = "arthur", "hunter/2 @home", "tok-4711"
SECRETS = (PASSWORD, TOKEN, KEY, USER)


@pytest.mark.parametrize("every", [3, 10**9])
def test_secrets_of_an_address_are_sent_and_never_written(run, start_server, make_server, monkeypatch, tmp_path, every):
    monkeypatch.setenv("VICO_TEST_KEY", KEY)
    server = make_server(models=(f"tiny-{TOKEN}",))
    answer, seen = server.answer, []

    async def echo(request):
        seen.append((request.query_params["api_key"], request.headers["authorization"]))
        if len(seen) % every:
            return await answer(request)
        secrets = [SECRETS, [secret.upper() for secret in SECRETS], *map(quote, SECRETS)]
        return PlainTextResponse(json.dumps([*secrets, str(request.url), dict(request.headers)]), status_code=500)

    server.answer = echo
    start_server(server)
    host = server.url.removeprefix("http://")
    url = f"http://{USER}:{quote(PASSWORD, safe='')}@{host}/v1/?api_key={TOKEN}"
    monkeypatch.setattr("sys.argv", ["vico-eval", "throughput", "serve", url, "--requests", "2"])
    options = ["--requests", 4] if every > 3 else []
    status, err, summary = run(url, *options, "--api-key-env", "VICO_TEST_KEY")
    assert status == (0 if every > 3 else 1)
    assert {token for token, _ in seen} == {TOKEN}
    assert all("Basic" in sent or KEY in sent for _, sent in seen)
    assert summary["command"] == f"vico-eval throughput serve 'http://(key)@{host}/v1/?(key)' --requests 2"
    assert (summary["servers"][0]["url"], summary["servers"][0]["model"]) == (
        f"http://(key)@{host}/?(key)",
        "tiny-(key)",
    )
    basic = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
    written = (err + "".join(path.read_text() for path in (tmp_path / "out").iterdir())).lower()
    for secret in (*SECRETS, *map(quote, SECRETS), basic):
        assert secret.lower() not in written


@pytest.mark.parametrize(
    "text",
    [
        'say "sk-1/2+3"',
        "SK-1/2+3",
        r"sk-1\/2\u002B3",
        "sk-1%2f2%2B3",
        "sk-1&#47;2&#x2b;3",
        "http://sk-1/2+3@host/",
        "https://host/v1?sk-1",
        "ftp://me:sk-1@host",
    ],
)
def test_a_secret_is_found_however_it_is_written(text):
    assert "sk" not in Redactor(["sk-1/2+3", None, ""])(text).lower()


def test_what_is_no_secret_is_left():
    text = "model org/x_1: see https://host/path, or mail me@example.org?"
    assert Redactor([None])(text) == text
    assert Redactor(["abcd", "abcd-ef"])("abcd-ef, abcd") == "(key), (key)"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("http://u:secret@a:99999", "http://(key)@a:99999"),
        ("http://u:secret@a:x", "http://(key)@a:x"),
        ("u:secret@a", "(key)@a"),
        ("ftp://a?secret", "ftp://a?(key)"),
        ("http://a#secret", "http://a#(key)"),
        ("http://a:0", "http://a:0"),
        ("http://a..b", "http://a..b"),
        ("http://xn--", "http://xn--"),
        ("http://[::1", "http://[::1"),
        ("http://", "http://"),
        ("http:/a", "http:/a"),
    ],
)
def test_what_is_no_address_is_refused_without_its_secrets(text, shown):
    with pytest.raises(ConfigError) as error:
        Address.parse(text)
    assert f"no server answers at {shown}: expected http:// or https://" in str(error.value)
    assert "secret" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "models"),
    [
        ("http://a", "http://a/v1/models"),
        ("HTTPS://a:1/v1/", "https://a:1/v1/models"),
        ("http://[::1]:8000", "http://[::1]:8000/v1/models"),
        ("http://a/b/v1?x=1", "http://a/b/v1/models?x=1"),
        ("http://u@a/", "http://u@a/v1/models"),
    ],
)
def test_addresses_keep_their_path_and_query(text, models):
    assert str(Address.parse(text).to("/v1/models")) == models


@pytest.mark.parametrize(
    ("arguments", "secret"),
    [
        (["http://a", "--api-key-env", "sk-secret"], "secret"),
        (["http://a", "--api-key-env", "hf_secret"], "secret"),
        (["--compare", "http://me:secret@a"], "secret"),
        (["--compare", "http://a?key=secret"], "secret"),
        (["--compare", "x=http://me:secret@a:99999"], "secret"),
        (["http://me:secret@127.0.0.1:9/?api_key=secret"], "secret"),
    ],
)
def test_a_key_in_the_wrong_place_is_not_repeated(run, arguments, secret):
    status, err, _ = run(*arguments)
    assert status == 1
    assert secret not in err


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
