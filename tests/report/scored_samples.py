"""Random documents of tasks whose score is no mean over documents, and what lmms-eval's own scorers make of them."""

import random
from typing import Any

import numpy as np


def pope(generator: random.Random, number: int) -> dict[str, Any]:
    """The metrics' fields of document `number`, as in a samples line; so below."""
    truth = generator.choice(("yes", "no"))
    said = truth if generator.random() < 0.7 else generator.choice(("yes", "no", "perhaps"))
    return {
        "pope_f1_score": {"question_id": "1", "score": float(said == truth), "prediction": said, "ground_truth": truth}
    }


def mme(generator: random.Random, number: int) -> dict[str, Any]:
    # Categories of 2, 3 and 15 pictures, with two questions each.
    picture = number // 2
    category = "code_reasoning" if picture < 2 else "existence" if picture < 5 else "celebrity"
    key = "mme_cognition_score" if category == "code_reasoning" else "mme_perception_score"
    right = float(generator.random() < 0.8)
    return {key: {"question_id": f"{picture}.jpg", "category": category, "score": right}}


def mmmu(generator: random.Random, number: int) -> dict[str, Any]:
    subject = generator.choice(("Math", "Art"))
    if number % 2:
        kind, answer, said = "multiple-choice", generator.choice("AB"), generator.choice("AB")
    else:
        kind = "open"
        answer = generator.choice(("2,000", "3.14159", "['a dog', '7']", "x", " Paris "))
        answer = ["a dog", "7"] if answer.startswith("[") else answer
        said = generator.choice(([2000.0], [3.14, "no"], ["a dog barks"], [7.0], ["is x of"], ["fix"], ["paris"], []))
    field = {
        "id": f"validation_{subject}_{number}",
        "subdomain": subject,
        "question_type": kind,
        "answer": answer,
        "parsed_pred": [said],
    }
    return {"mmmu_acc": field}


def seed_image(generator: random.Random, number: int) -> dict[str, Any]:
    field = {"pred": generator.choice("ABcd "), "answer": generator.choice("ABCD"), "question_id": str(number)}
    return {"seed_image" if number % 3 else "seed_video": field, "seed_all": field}


def mmbench(generator: random.Random, number: int) -> dict[str, Any]:
    # Two to four options, and as many rotations, whose index is a million higher each; other replies need reading.
    question, rotation = divmod(number, 4)
    options = 2 + question % 3
    letters = "ABCD"[:options]
    answer = letters[rotation % options]
    reply = generator.choice((answer, answer, f"({answer})", f"It is thing {answer.lower()}", "hm"))
    index = question + 1_000_000 * (rotation % options)
    field = {"index": index, "answer": answer, "prediction": reply, "category": "c", "L2-category": "l"}
    return {"gpt_eval_score": field | {letter: f"thing {letter}" if letter in letters else None for letter in "ABCD"}}


def mmbench_v11(generator: random.Random, number: int) -> dict[str, Any]:
    # The last question lacks a rotation, and doesn't count.
    question, rotation = divmod(number, 3)
    right = float(generator.random() < 0.8)
    index = question + 1_000_000 * rotation
    return {"mmbench_v11_exact": {"index": index, "options": 3, "letter": "A", "score": right}}


def mmiu(generator: random.Random, number: int) -> dict[str, Any]:
    task = ("point_tracking", "jigsaw_puzzle_solving", "other")[0 if number < 5 else 1 if number < 40 else 2]
    right = float(generator.random() < 0.6)
    return {"mmiu_macro20": {"task": task, "spatial": task != "other", "letter": "A", "score": right}}


def muirbench(generator: random.Random, number: int) -> dict[str, Any]:
    # The filter leaves a letter, or a reply whose beginning is none.
    answer = generator.choice("ABCD")
    said = generator.choice((answer, f" {answer.lower()}", "B", "I see a cat"))
    field = {"pred": said, "answer": answer, "task": generator.choice(("Counting", "Ordering")), "idx": str(number)}
    return {"muirbench_score_overall": field | {"image_relation": "Cropped", "image_type": "Slides"}}


def qbench2(generator: random.Random, number: int) -> dict[str, Any]:
    field = {"id": number, "question_concern": number % 4, "question_type": number % 3}
    return {"qbench_acc": field | {"answer": generator.choice("ABC"), "parsed_pred": generator.choice("ABC")}}


def hallusion_bench(generator: random.Random, number: int) -> dict[str, Any]:
    # Sets of five questions, about two figures: pairs of questions about both, and one about the first alone.
    collection, place = divmod(number, 5)
    figure, question = divmod(place, 3)
    field = {"set": f"VD_map_{collection}", "answer": "yes", "score": float(generator.random() < 0.7)}
    return {
        "hallusion_mean": field | {"figure": f"VD_map_{collection}_{figure}", "pair": f"VD_map_{collection}_{question}"}
    }


FIELDS = {
    "hallusion_bench": hallusion_bench,
    "muirbench": muirbench,
    "qbench2": qbench2,
    "pope": pope,
    "mme": mme,
    "mmmu": mmmu,
    "seed_image": seed_image,
    "mmbench": mmbench,
    "mmbench_v11": mmbench_v11,
    "mmiu": mmiu,
}
NUMBERS = {"mme": 40, "mmbench": 48, "mmbench_v11": 44}


def fields_of(name: str, seed: int = 0, number: int | None = None) -> list[dict[str, Any]]:
    """Random documents of a task; of MMBench only as many rotations as a question has options."""
    generator = random.Random(f"{name} {seed}")
    fields = [FIELDS[name](generator, place) for place in range(number or NUMBERS.get(name, 60))]
    seen = {}
    for field in fields:
        own = field.get("gpt_eval_score") or {}
        seen.setdefault(own.get("index", len(seen)), field)
    return list(seen.values())


def columns_of(fields: list[dict[str, Any]], key: str) -> list[Any]:
    return [own[key] for own in fields if key in own]


def aggregated(name: str, fields: list[dict[str, Any]], monkeypatch, tmp_path) -> dict[str, float]:
    """The metrics that lmms-eval, or our task's own scorer, makes of one task's documents."""
    monkeypatch.chdir(tmp_path)
    match name:
        case "pope":
            from lmms_eval.tasks.pope.utils import pope_aggregate_f1_score

            return {"pope_f1_score,none": pope_aggregate_f1_score(columns_of(fields, "pope_f1_score"))}
        case "mme":
            from lmms_eval.tasks.mme.utils import mme_aggregate_results

            keys = ("mme_perception_score", "mme_cognition_score")
            return {f"{key},none": mme_aggregate_results(columns_of(fields, key)) for key in keys}
        case "mmmu":
            from lmms_eval.tasks.mmmu.utils import mmmu_aggregate_results

            return {"mmmu_acc,none": mmmu_aggregate_results(columns_of(fields, "mmmu_acc"))}
        case "seed_image":
            from lmms_eval.tasks.seedbench.utils import seed_aggregation_result

            return {"seed_image,none": seed_aggregation_result(columns_of(fields, "seed_image"))}
        case "mmbench":
            from lmms_eval.tasks.mmbench.mmbench_evals import MMBench_Evaluator

            overall, *_ = MMBench_Evaluator().eval_result(columns_of(fields, "gpt_eval_score"), eval_method="static")
            return {"gpt_eval_score,none": 100 * overall}
        case "mmbench_v11":
            complete = [
                [own["mmbench_v11_exact"]["score"] for own in fields[place : place + 3]] for place in range(0, 42, 3)
            ]
            return {"mmbench_v11_exact,none": sum(map(all, complete)) / len(complete)}
        case "muirbench":
            from lmms_eval.tasks.muirbench.utils import muir_aggregation

            own = columns_of(fields, "muirbench_score_overall")
            return {"muirbench_score_overall,flexible-extract": muir_aggregation(own)}
        case "qbench2":
            from lmms_eval.tasks.qbench.utils import q_bench_aggregate_results

            return {"qbench_acc,none": q_bench_aggregate_results(columns_of(fields, "qbench_acc"))}
        case "hallusion_bench":
            return {"hallusion_mean,none": hallusion_mean(columns_of(fields, "hallusion_mean"))}
        case _:
            scores = [own["mmiu_macro20"]["score"] for own in fields]
            return {"mmiu_macro20,none": (np.mean(scores[:5]) + np.mean(scores[5:40])) / 2}


def hallusion_mean(outcomes: list[dict[str, Any]]) -> float:
    """The mean of the three accuracies, from lmms-eval's functions for what a judge has judged."""
    from lmms_eval.tasks.hallusion_bench.utils import get_eval_all, get_eval_fig, get_eval_pair_all

    data = []
    for place, own in enumerate(outcomes):
        names = {"category": "VD", "subcategory": "map", "set_id": own["set"]}
        ids = {"figure_id": own["figure"].rpartition("_")[2], "question_id": own["pair"].rpartition("_")[2]}
        judged = {"correct": int(own["score"]), "judged": str(int(own["score"])), "number": place}
        data.append(names | ids | judged)
    counted = (get_eval_all(data, "judged"), get_eval_fig(data), get_eval_pair_all(data, "judged"))
    return float(np.mean([own["correct"] / own["total"] for own in counted]))
