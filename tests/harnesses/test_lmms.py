"""The models as lmms-eval finds and runs them: through its own registry, tasks and scorers."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFile

from vico_eval.errors import CheckpointError, ConfigError, DocumentError, OutputError
from vico_eval.harnesses.lmms_eval.internvl_x import method_of
from vico_eval.methods.registry import method_names
from vico_eval.paths import tasks_dir
from vico_eval.runs.answers import read_journal

TASKS = ["tiny_read", "tiny_compare"]
LIMIT = 3
ARGUMENTS = "absolute_threshold=0.26,device=cpu"
OF_ANY_FAMILY = {
    *("vanilla", "random_tokens", "top_attention", "cdpruner", "divprune", "holov", "visionzip", "vispruner"),
    *("dart", "fastv", "fitprune", "pyramiddrop", "sparsevlm"),
}
"""Methods that need neither tiles nor connectors to choose among."""

SOME_TASKS = Path(__file__).parents[1] / "some_tasks.py"


@pytest.fixture(scope="module")
def evaluate():
    from lmms_eval.evaluator import simple_evaluate
    from lmms_eval.tasks import TaskManager

    manager = TaskManager(include_path=str(tasks_dir()), include_defaults=False)

    def run(model, arguments, **options):
        return simple_evaluate(
            model=model,
            model_args=arguments,
            tasks=TASKS,
            task_manager=manager,
            limit=LIMIT,
            batch_size=2,
            log_samples=True,
            **options,
        )

    return run


def answers(samples):
    """By task and document: what was answered, and its account."""
    return {
        (task, sample["doc_id"]): (answer_of(sample), sample["token_counts"][0])
        for task, lines in samples.items()
        for sample in lines
    }


def answer_of(sample):
    # lmms-eval's files have the text where its return value has a list of one.
    answer = sample["filtered_resps"]
    return answer if isinstance(answer, str) else answer[0]


def side_file(folder):
    lines = [line for file in folder.glob("answers.rank*.jsonl") for line in read_lines(file)]
    return {(line["task"], line["doc_id"]): line["account"] for line in lines}


def test_lmms_eval_finds_every_method_by_entry_point():
    from lmms_eval.models import MODEL_REGISTRY_V2

    expected = {
        "internvl": set(method_names()) - {"max_pixels"},
        "qwen2_5_vl": OF_ANY_FAMILY | {"max_pixels"},
        "qwen3_vl": OF_ANY_FAMILY | {"max_pixels"},
    }
    for kind, methods in expected.items():
        for name in ("compressed", *methods):
            model = MODEL_REGISTRY_V2.get_model_class(f"{name}_{kind}")
            assert (model.is_simple, model.kind.name) == (False, kind), name
    assert MODEL_REGISTRY_V2.get_model_class("internvl_x").is_simple is False
    ours = {name for name in MODEL_REGISTRY_V2.list_model_names() if name.endswith(("_qwen2_5_vl", "_qwen3_vl"))}
    assert len(ours) == 2 * (2 + len(OF_ANY_FAMILY))


def test_the_list_of_models_imports_neither_torch_nor_transformers():
    # lmms-eval's own package imports both, so our part of the list is looked at without it.
    code = (
        "import sys, types; "
        "fake = types.ModuleType('lmms_eval.models.registry_v2'); fake.ModelManifest = lambda *a, **k: (a, k); "
        "sys.modules |= {'lmms_eval': types.ModuleType('lmms_eval'), 'lmms_eval.models': types.ModuleType('m'), "
        "'lmms_eval.models.registry_v2': fake}; "
        "from vico_eval.harnesses.lmms_eval.manifests import manifests; assert len(manifests()) >= 8; "
        "sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_run_leaves_scores_accounts_and_a_record(untrained, evaluate, tmp_path):
    results = evaluate("vico_internvl", f"pretrained={untrained}/vico,record_dir={tmp_path},{ARGUMENTS}")
    for task in TASKS:
        assert results["results"][task]["exact_match,none"] in (0.0, pytest.approx(1 / 3), pytest.approx(2 / 3), 1.0)
    found = answers(results["samples"])
    assert len(found) == LIMIT * len(TASKS)
    kept = side_file(tmp_path)
    for key, (_, counts) in found.items():
        assert counts["account"] == kept[key]
        assert counts["input_tokens"] == kept[key]["text_tokens"] + kept[key]["visual_tokens"]
        assert counts["output_tokens"] == kept[key]["generated_tokens"]
    assert sum(account["compressed_tiles"] for account in kept.values()) > 0
    record = json.loads((tmp_path / "record.json").read_text())
    assert (record["method"], record["title"], record["harness"]) == ("vico", "ViCO", "lmms-eval")
    assert record["method_args"] == {"absolute_only": False, "absolute_threshold": 0.26, "relative_threshold": None}
    assert record["checkpoint"]["name"] == f"{untrained}/vico"
    assert (record["dtype"], record["device"], record["num_processes"]) == ("float32", "cpu", 1)
    assert record["previews"] == "previews"
    assert record["data_sets"].keys() == record["scorers"].keys() == set(TASKS)
    assert all(known.startswith("sha256 ") for known in record["data_sets"].values())
    named = {
        f"{account['media'][:2]}/{account['media']}-{number}.jpg"
        for account in kept.values()
        for number in range(len(account["grids"]))
    }
    assert named == {path.relative_to(tmp_path / "previews").as_posix() for path in tmp_path.rglob("*.jpg")}


def test_the_response_cache_answers_a_second_run_and_accounts_are_not_lost(untrained, evaluate, tmp_path):
    arguments = f"pretrained={untrained}/vico,record_dir={tmp_path / 'run'},{ARGUMENTS}"
    first = answers(evaluate("vico_internvl", arguments, use_cache=str(tmp_path / "cache"))["samples"])
    kept = side_file(tmp_path / "run")
    assert len(kept) == len(first)
    second = evaluate("vico_internvl", arguments, use_cache=str(tmp_path / "cache"))["samples"]
    texts = {(task, sample["doc_id"]): answer_of(sample) for task, lines in second.items() for sample in lines}
    assert texts == {key: text for key, (text, _) in first.items()}
    assert side_file(tmp_path / "run") == kept


def test_a_run_under_other_conditions_starts_its_accounts_anew(untrained, evaluate, tmp_path):
    evaluate("vico_internvl", f"pretrained={untrained}/vico,record_dir={tmp_path},{ARGUMENTS}")
    lines = (tmp_path / "answers.rank0.jsonl").read_text().splitlines()
    (tmp_path / "answers.rank1.jsonl").write_text("left by a second process\n")
    record = json.loads((tmp_path / "record.json").read_text())
    evaluate("vanilla_internvl", f"pretrained={untrained}/vico,record_dir={tmp_path},device=cpu")
    assert len((tmp_path / "answers.rank0.jsonl").read_text().splitlines()) == len(lines)
    assert {account["compressed_tiles"] for account in side_file(tmp_path).values()} == {0}  # of rank 0, the only file
    assert (tmp_path / "answers.rank0.jsonl.old1").read_text().splitlines() == lines
    assert (tmp_path / "answers.rank1.jsonl.old1").read_text() == "left by a second process\n"
    assert json.loads((tmp_path / "record.json.old1").read_text()) == record


def test_compressed_internvl_takes_a_combination(untrained, evaluate, tmp_path):
    arguments = f"pretrained={untrained}/vico,record_dir={tmp_path},method=single_tile+all_compress,device=cpu"
    found = answers(evaluate("compressed_internvl", arguments)["samples"])
    accounts = {key: counts["account"] for key, (_, counts) in found.items()}
    assert {account["tiles"] for (task, _), account in accounts.items() if task == "tiny_read"} == {1}
    assert all(account["compressed_tiles"] == account["tiles"] for account in accounts.values())


def test_internvl_x_runs_the_parts_of_its_variant(untrained, evaluate, tmp_path):
    arguments = f"pretrained={untrained}/pvtc,record_dir={tmp_path},variant=pvtc+rvtc,device=cpu"
    found = answers(evaluate("internvl_x", arguments)["samples"])
    accounts = [counts["account"] for _, counts in found.values()]
    assert all(account["visual_tokens"] == 16 * account["tiles"] for account in accounts)
    assert json.loads((tmp_path / "record.json").read_text())["method"] == "rvtc_edge+pvtc"


@pytest.mark.parametrize(
    ("variant", "method"),
    [
        ("rvtc", "rvtc_edge"),
        ("lvtc+pvtc", "pvtc+lvtc"),
        ("full", "rvtc_edge+pvtc+lvtc"),
        ("lvtc+rvtc+pvtc", "rvtc_edge+pvtc+lvtc"),
    ],
)
def test_a_variant_of_internvl_x_is_a_combination_of_methods(variant, method):
    assert method_of(variant) == method


@pytest.mark.parametrize("variant", [None, "", 5, "base", "pvtc+", "pvtc+pvtc", "full+rvtc"])
def test_a_variant_that_is_none(variant):
    with pytest.raises(ConfigError, match=r"expected full, or one or several of rvtc, pvtc, lvtc joined by \+"):
        method_of(variant)


def test_a_variant_names_all_that_the_checkpoint_holds_and_no_more(untrained, evaluate):
    with pytest.raises(
        CheckpointError, match=r"holds PVTC, which variant=rvtc does not name\. Pass variant=rvtc\+pvtc"
    ):
        evaluate("internvl_x", f"pretrained={untrained}/pvtc,variant=rvtc,device=cpu")
    with pytest.raises(CheckpointError, match=r"has no PVTC, and method 'pvtc' needs it; .* has another connector"):
        evaluate("internvl_x", f"pretrained={untrained}/base,variant=pvtc,device=cpu")


@pytest.mark.parametrize(
    ("model", "arguments", "message"),
    [
        ("internvl_x", "pretrained=vico-tiny,variant=pvtc,method=pvtc", "takes variant= and no method="),
        ("internvl_x", "pretrained=vico-tiny", "got variant=None; expected full"),
        ("internvl_x", "variant=rvtc", "no checkpoint was given"),
        ("internvl_x", "pretrained=vico-tiny-base,variant=rvtc,allow_pickl=true", "did you mean 'allow_pickle'"),
        (
            "vico_internvl",
            "pretrained=vico-tiny,absolute_treshold=0.4",
            r"unknown argument 'absolute_treshold'.*did you",
        ),
        ("vico_internvl", "pretrained=vico-tiny,method=random", "takes no method="),
        ("vico_internvl", "absolute_threshold=0.26", "no checkpoint was given"),
        ("compressed_internvl", "pretrained=vico-tiny,method=vicoo", "unknown method 'vicoo'"),
        ("vico_internvl", "pretrained=vico-tiny,absolute_threshold=40", r"absolute_threshold is 40"),
    ],
)
def test_wrong_model_arguments_are_errors(evaluate, model, arguments, message):
    with pytest.raises(ConfigError, match=message):
        evaluate(model, arguments)


def test_each_of_several_processes_takes_a_gpu_of_its_own(tmp_path, monkeypatch):
    from vico_eval.harnesses.lmms_eval import adapter
    from vico_eval.harnesses.lmms_eval.models import compressed_internvl

    class SecondOfTwo:
        process_index, num_processes, device = 1, 2, "cuda:1"

    asked = {}

    def find_engine(arguments):
        asked.update(arguments)
        raise RuntimeError("out of memory")

    monkeypatch.setattr(adapter, "Accelerator", SecondOfTwo)
    monkeypatch.setattr(adapter, "find_engine", find_engine)
    for device, expected in ((None, "cuda:1"), ("cuda", "cuda:1"), ("cpu", "cpu")):
        # Whatever one process fails at, its exit status ends the others too.
        with pytest.raises(SystemExit):
            compressed_internvl(pretrained="vico-tiny", device=device, record_dir=str(tmp_path))
        assert asked["device"] == expected
    with pytest.raises(ConfigError, match="2 processes and device_map"):
        compressed_internvl(pretrained="vico-tiny", device_map="auto", record_dir=str(tmp_path))


def test_a_folder_that_cannot_be_written_is_an_error(untrained, evaluate, tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    with pytest.raises(OutputError, match=r"can't be written.*Pass another record_dir"):
        evaluate("vico_internvl", f"pretrained={untrained}/vico,record_dir={blocked}/run,device=cpu")


def test_two_processes_give_the_answers_of_one(untrained, evaluate, start_loaded, tmp_path):
    arguments = f"pretrained={untrained}/vico,{ARGUMENTS}"
    one = evaluate("vico_internvl", f"{arguments},record_dir={tmp_path / 'one'}")["samples"]
    words = [
        *(SOME_TASKS, "", "lmms_eval", "--model", "vico_internvl"),
        *("--model_args", f"pretrained={untrained}/vico,absolute_threshold=0.26,record_dir={tmp_path / 'two'}"),
        *("--tasks", ",".join(TASKS), "--include_path", tasks_dir(), "--limit", LIMIT, "--batch_size", "2"),
        *("--log_samples", "--output_path", tmp_path / "two"),
    ]
    log = tmp_path / "two.log"
    programs = start_loaded(words, log, processes=2, ACCELERATE_USE_CPU="true")
    assert [program.wait(400) for program in programs] == [0, 0], log.read_text()[-3000:]
    files = list((tmp_path / "two").rglob("*_samples_*.jsonl"))
    assert len(files) == len(TASKS), log.read_text()[-3000:]
    two = {file.stem.split("_samples_")[1]: read_lines(file) for file in files}
    found, expected = answers(two), answers(one)
    # Scores may differ in their last digit: the processes batch other documents together.
    scores = [[counts["account"].pop("p_compress") for _, counts in by_key.values()] for by_key in (found, expected)]
    assert found == expected
    assert dict(zip(found, scores[0], strict=True)) == {
        key: pytest.approx(value, abs=1e-5) for key, value in zip(expected, scores[1], strict=True)
    }
    assert len(list((tmp_path / "two").glob("answers.rank*.jsonl"))) == 2
    assert json.loads((tmp_path / "two" / "record.json").read_text())["num_processes"] == 2


def read_lines(file: Path):
    return [json.loads(line) for line in file.read_text().splitlines()]


def instance(document_path, gen_kwargs, doc_id=0, question=""):
    from lmms_eval.api.instance import Instance

    def messages(document):
        content = [{"type": "image", "url": document["path"]}, {"type": "text", "text": "What?"}]
        return [{"role": "user", "content": content}]

    return Instance(
        request_type="generate_until",
        arguments=(question, messages, gen_kwargs, doc_id, "broken", "test"),
        idx=0,
        metadata={"task": "broken", "doc_id": doc_id, "repeats": 1},
    )


def make_model(untrained, tmp_path, document_path, **arguments):
    from lmms_eval.models import MODEL_REGISTRY_V2

    model = MODEL_REGISTRY_V2.get_model_class("vanilla_internvl")(
        pretrained=str(untrained / "vico"), device="cpu", record_dir=str(tmp_path), **arguments
    )
    model.task_dict = {"broken": {"test": [{"path": str(document_path)}]}}
    return model


def test_an_unreadable_document_stops_the_run_by_name(untrained, tmp_path):
    missing = tmp_path / "missing.png"
    model = make_model(untrained, tmp_path, missing)
    with pytest.raises(DocumentError, match=r"broken/test/0.*missing.png"):
        model.generate_until([instance(missing, {"max_new_tokens": 4, "until": ["\n\n"]})])
    # lmms-eval catches errors; only an exit status reaches the launcher of several processes.
    model._world_size = 2
    with pytest.raises(SystemExit) as ended:
        model.generate_until([instance(missing, {"max_new_tokens": 4, "until": ["\n\n"]})])
    assert ended.value.code == 1


def test_a_cut_off_image_that_datasets_decodes_is_a_failure_too(untrained, tmp_path, monkeypatch):
    import datasets

    whole = tmp_path / "whole.png"
    pixels = np.random.default_rng(0).integers(0, 255, (56, 56, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(whole)
    images = [{"bytes": whole.read_bytes()[:length], "path": None} for length in (None, 5000)]
    split = datasets.Dataset.from_dict({"path": images}, features=datasets.Features({"path": datasets.Image()}))
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)  # as lmms-eval leaves it
    model = make_model(untrained, tmp_path / "run", whole, keep_going=True)
    model.task_dict = {"broken": {"test": split}}
    results = model.generate_until([instance(whole, {"max_new_tokens": 4}, doc_id) for doc_id in range(2)])
    assert [result.text == "" for result in results] == [False, True]
    assert ImageFile.LOAD_TRUNCATED_IMAGES


def test_with_keep_going_a_failure_is_noted_and_the_others_are_answered(untrained, tmp_path):
    Image.new("RGB", (56, 56)).save(tmp_path / "a.png")
    run = tmp_path / "run"
    model = make_model(untrained, run, tmp_path / "a.png", keep_going=True, batch_size=2)
    pictures = ["a.png", "missing.png", "a.png"]
    model.task_dict = {"broken": {"test": [{"path": str(tmp_path / name)} for name in pictures]}}
    asked = [instance(tmp_path / "a.png", {"max_new_tokens": 4}, doc_id) for doc_id in range(3)]
    results = model.generate_until(asked)
    assert [result.text == "" for result in results] == [False, True, False]
    assert results[1].token_counts is None
    (failure,) = read_lines_that_are_not_blank(run / "failures.rank0.jsonl")
    assert (failure["task"], failure["split"], failure["doc_id"]) == ("broken", "test", 1)
    assert "missing.png does not exist" in failure["reason"]


def test_when_one_document_after_another_fails_the_run_stops(untrained, tmp_path):
    model = make_model(untrained, tmp_path / "run", tmp_path / "missing.png", keep_going=True)
    model.task_dict["broken"]["test"] *= 30
    with pytest.raises(DocumentError, match=r"20 documents in a row could not be answered; the last: .*broken/test/19"):
        model.generate_until([instance(None, {"max_new_tokens": 4}, doc_id) for doc_id in range(30)])


def test_a_continued_run_takes_over_the_answers_of_the_stopped_one(untrained, tmp_path):
    Image.new("RGB", (56, 56)).save(tmp_path / "a.png")
    run, file = tmp_path / "run", tmp_path / "run" / "answers.rank0.jsonl"
    asked = [instance(tmp_path / "a.png", {"max_new_tokens": 4}, doc_id) for doc_id in range(3)]

    def answer(**arguments):
        model = make_model(untrained, run, tmp_path / "a.png", **arguments)
        model.task_dict["broken"]["test"] *= 3
        model._run.write_record()
        return [(result.text, result.token_counts.to_dict()) for result in model.generate_until(asked)]

    first = answer()
    lines = read_lines_that_are_not_blank(file)
    assert [line["doc_id"] for line in lines] == [0, 1, 2]
    # Killed while it wrote its second answer; the first one is marked, to be known again.
    file.write_text(json.dumps(lines[0] | {"text": "from the stopped run"}) + "\n" + json.dumps(lines[1])[:-9])
    second = answer(resume=True)
    assert second == [("from the stopped run", first[0][1]), *first[1:]]
    assert answer(resume=True) == second
    assert len(read_lines_that_are_not_blank(file)) == 3
    # Other conditions, or nothing said of resuming: every document is asked again.
    assert answer() == first
    file.write_text(json.dumps(lines[0] | {"text": "from the stopped run"}) + "\n")
    asked = [instance(tmp_path / "a.png", {"max_new_tokens": 3}, doc_id) for doc_id in range(3)]
    assert answer(resume=True)[0][0] != "from the stopped run"
    file.write_text(json.dumps(lines[0] | {"text": "from the stopped run"}) + "\n")
    asked = [instance(tmp_path / "a.png", {"max_new_tokens": 4}, doc_id, "In other words?") for doc_id in range(3)]
    assert answer(resume=True)[0][0] != "from the stopped run"
    file.write_text(json.dumps(lines[0] | {"text": "from the stopped run"}) + "\n")
    asked = [instance(tmp_path / "a.png", {"max_new_tokens": 4}, doc_id) for doc_id in range(3)]
    assert answer(resume=True, max_tiles=3)[0][0] != "from the stopped run"
    assert "from the stopped run" in file.with_name("answers.rank0.jsonl.old1").read_text()


@pytest.mark.parametrize("kind", ["files", "open"])
def test_where_pictures_were_exchanged_only_their_documents_are_asked_again(untrained, tmp_path, kind):
    run, file = tmp_path / "run", tmp_path / "run" / "answers.rank0.jsonl"
    asked = [instance(None, {"max_new_tokens": 4}, doc_id) for doc_id in range(4)]
    batches = []

    def answer(colours, **arguments):
        model = make_model(untrained, run, "", batch_size=2, **arguments)
        pictures = [Image.new("RGB", (56, 56), colour) for colour in colours]
        for number, picture in enumerate(pictures):
            picture.save(tmp_path / f"{number}.png")
        if kind == "files":
            pictures = [str(tmp_path / f"{number}.png") for number in range(4)]
        model.task_dict["broken"]["test"] = [{"path": picture} for picture in pictures]
        row = model._engine.rows[0]
        answer_batch = row.answer
        row.answer = lambda batch, *rest: batches.append([entry.key for entry in batch]) or answer_batch(batch, *rest)
        model._run.write_record()
        return [result.text for result in model.generate_until(asked)]

    first = answer(["red", "green", "blue", "white"])
    whole = sorted(batches)
    lines = read_lines_that_are_not_blank(file)
    file.write_text("".join(json.dumps(line | {"text": f"kept {line['doc_id']}"}) + "\n" for line in lines))
    batches.clear()
    assert answer(["red", "green", "blue", "white"], resume=True) == [f"kept {number}" for number in range(4)]
    assert not batches
    # The third picture is another one; the first file is written anew and shows the same.
    second = answer(["red", "green", "yellow", "white"], resume=True)
    assert second == ["kept 0", "kept 1", second[2], "kept 3"]
    assert second[2] != "kept 2"
    assert batches == [batch for batch in whole if "broken/test/2" in batch]
    assert [line["text"] for line in read_lines(file.with_name("answers.rank0.jsonl.stale"))] == ["kept 2"]
    last = {line["doc_id"]: line["text"] for line in read_lines_that_are_not_blank(file)}
    assert last == dict(enumerate(second))
    assert first[2] != "kept 2"


def test_words_that_only_the_messages_have_count(untrained, tmp_path):
    Image.new("RGB", (56, 56)).save(tmp_path / "a.png")

    def answer(word):
        model = make_model(untrained, tmp_path / "run", tmp_path / "a.png", resume=True)
        asked = instance(None, {"max_new_tokens": 4})
        content = [{"type": "image", "url": str(tmp_path / "a.png")}, {"type": "text", "text": word}]
        asked.arguments = ("", lambda _: [{"role": "user", "content": content}], *asked.args[2:])
        model._run.write_record()
        model.generate_until([asked])
        return len(read_lines_that_are_not_blank(tmp_path / "run" / "answers.rank0.jsonl"))

    assert [answer("What?"), answer("What?")] == [1, 1]
    assert not (tmp_path / "run" / "answers.rank0.jsonl.stale").exists()
    assert answer("Why?") == 1
    assert len(read_lines(tmp_path / "run" / "answers.rank0.jsonl.stale")) == 1


def test_where_pictures_are_kept(untrained, tmp_path, monkeypatch):
    Image.new("RGB", (56, 56)).save(tmp_path / "a.png")
    monkeypatch.chdir(tmp_path)

    def answer(run, **arguments):
        model = make_model(untrained, Path("runs") / run, tmp_path / "a.png", **arguments)
        model.generate_until([instance(None, {"max_new_tokens": 1})])
        record = json.loads(Path("runs", run, "record.json").read_text())
        return record["previews"], [path.parent.parent.as_posix() for path in Path().rglob("*.jpg")]

    assert answer("a", previews=False) == (None, [])
    assert answer("a", previews="runs/shared") == ("../shared", ["runs/shared"])
    assert answer("a", previews=False, resume=True) == ("../shared", ["runs/shared"])  # those of the answers kept
    assert answer("b", previews="runs/shared") == ("../shared", ["runs/shared"])
    assert answer("c")[0] == "previews"
    with pytest.raises(ConfigError, match="previews is 1; expected true, false or a folder"):
        answer("d", previews=1)


def test_a_run_that_an_older_version_began_is_gone_on_with(untrained, tmp_path):
    Image.new("RGB", (56, 56)).save(tmp_path / "a.png")
    run = tmp_path / "run"

    def answer():
        model = make_model(untrained, run, tmp_path / "a.png", resume=True)
        model.task_dict["broken"]["test"] *= 2
        return [
            result.text for result in model.generate_until([instance(None, {"max_new_tokens": 4}, d) for d in (0, 1)])
        ]

    first = answer()
    file = run / "answers.rank0.jsonl"
    old, _ = read_lines_that_are_not_blank(file)
    for name in ("grids", "compressed", "media"):
        del old["account"][name]
    file.write_text(json.dumps(old | {"text": "from the older version"}) + "\n")
    record = json.loads((run / "record.json").read_text())
    del record["previews"]
    (run / "record.json").write_text(json.dumps(record))
    assert answer() == ["from the older version", first[1]]
    assert [line["account"].get("grids") for line in read_lines_that_are_not_blank(file)] == [None, [[1, 1, 1]]]
    assert json.loads((run / "record.json").read_text())["previews"] == "previews"
    answered = [answers[-1] for answers in read_journal(run)["broken"].values()]
    assert [one.counts().grids for one in answered] == [None, ((1, 1, 1),)]


def test_old_failures_between_kept_answers_do_not_stop_a_continued_run(untrained, tmp_path, monkeypatch):
    from vico_eval.harnesses.lmms_eval import rows

    monkeypatch.setattr(rows, "FAILURES_IN_A_ROW", 3)
    Image.new("RGB", (56, 56)).save(tmp_path / "a.png")
    documents = [{"path": str(tmp_path / ("missing.png" if number % 2 else "a.png"))} for number in range(10)]

    def answer(count):
        model = make_model(untrained, tmp_path / "run", tmp_path / "a.png", keep_going=True, resume=True)
        model.task_dict["broken"]["test"] = documents
        model._run.write_record()
        asked = [instance(None, {"max_new_tokens": 2}, doc_id) for doc_id in range(count)]
        # The processes of a run end with as many requests each: the last one is repeated.
        return [result.text for result in model.generate_until(asked + asked[-1:] * 4)]

    assert [text == "" for text in answer(8)] == [False, True] * 4 + [True] * 4
    assert [text == "" for text in answer(10)] == [False, True] * 5 + [True] * 4


def read_lines_that_are_not_blank(file):
    lines = []
    for line in filter(None, file.read_text().split("\n")):
        try:
            lines.append(json.loads(line))
        except json.JSONDecodeError:
            assert file.name.startswith("answers")  # cut off where the run was killed
    return lines


def test_generation_arguments_are_honoured_and_left_as_they_were(untrained, tmp_path):
    Image.new("RGB", (56, 56)).save(tmp_path / "a.png")
    given = {"max_new_tokens": 3, "temperature": 0, "until": ["\n\n"]}
    before = dict(given)
    for thinking, until in ((False, ("\n\n",)), (True, ())):
        model = make_model(untrained, tmp_path, tmp_path / "a.png", thinking=thinking)
        assert model._request(instance(tmp_path / "a.png", given)).generation.until == until
    (result,) = model.generate_until([instance(tmp_path / "a.png", given)])
    assert 1 <= result.token_counts.to_dict()["output_tokens"] <= 3
    assert given == before
