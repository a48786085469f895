"""The papers' tables: how ViCO's 1 to 6 and InternVL-X's 1 to 5 are laid out.

The numbers themselves, and nothing of the layout, are in `results/published`.
"""

from vico_eval.errors import ConfigError, unknown_name
from vico_eval.report.papers.layout import PAPERS, Average, Head, Layout, Quantity
from vico_eval.report.stats.retention import AVERAGE


def _scores(*benchmarks: str) -> tuple[Quantity, ...]:
    return tuple(Quantity(benchmark=benchmark) for benchmark in benchmarks)


_AVERAGE = Quantity(benchmark="Avg", title=AVERAGE)
_MODEL = Head(title="Model", source="model", is_merged=True)
_VARIANT = Head(title="Variant", source="variant")
_RATIO_NOTE = "Compressed tiles: the share of tiles with a quarter of their tokens."

_VICO_IMAGES = ("OCRBench", "ChartQA", "TextVQA", "MMStar", "POPE", "MME", "MMBench V1.1", "RealWorldQA")
_VICO_SEVERAL = (
    *_scores("BLINK", "MMT-Bench", "MMIU"),
    Quantity(benchmark="Video-MME", setting="without subtitles", title="w/o sub.", group="Video-MME"),
    Quantity(benchmark="Video-MME", setting="with subtitles", title="w/ sub.", group="Video-MME"),
)


def _vico(number: int, caption: str, quantities: tuple[Quantity, ...]) -> Layout:
    """A table that compares each model with itself under ViCO."""
    return Layout(
        paper="vico",
        number=number,
        caption=f"ViCO, Table {number}: {caption}",
        heads=(_MODEL, _VARIANT),
        quantities=(*quantities, _AVERAGE),
        average=_relative(quantities, "baseline"),
        rows_of={"vanilla": {"variant": "baseline"}, "vico": {"variant": "ViCO"}},
        notes=(_RATIO_NOTE,),
    )


def _relative(quantities: tuple[Quantity, ...], baseline: str) -> Average:
    # Rounded to one decimal, so half of it; the audit lists what is further off.
    keys = tuple(quantity.key for quantity in quantities)
    return Average(benchmarks=keys, baseline=baseline, digits=1, tolerance=0.05)


_VICO_3 = _scores("DocVQA", "ChartQA", "InfoVQA", "TextVQA", "OCRBench", "AI2D", "MMStar", "BLINK")

_VICO = (
    _vico(1, "InternVL3.5 on image benchmarks.", _scores(*_VICO_IMAGES, "MMMU")),
    _vico(2, "InternVL3.5 on several images and videos.", _VICO_SEVERAL),
    Layout(
        paper="vico",
        number=3,
        caption="ViCO, Table 3: ablations and other methods, InternVL3.5-8B.",
        heads=(Head(title="Method", source="variant"),),
        quantities=(*_VICO_3, _AVERAGE),
        average=_relative(_VICO_3, "Vanilla"),
        group_by="variant",
        group_starts=("Vanilla + VIR",),
        references=("Vanilla",),
        systems={"InternVL3.5-8B, Vanilla": "InternVL3.5-8B, baseline"},
        rows_of={
            "vanilla": {"variant": "Vanilla"},
            "vanilla_vir": {"variant": "Vanilla + VIR"},
            "single_tile": {"variant": "Vanilla w/o dynamic res."},
            "fastv": {"variant": "FastV"},
            "sparsevlm": {"variant": "SparseVLM"},
            "all_compress": {"variant": "ViCO (All Compress)"},
            "random": {"variant": "ViCO (Random Compress)"},
            "image_vir": {"variant": "ViCO (Image-level ViR)"},
            "vico": {"variant": "ViCO"},
        },
        notes=(_RATIO_NOTE,),
    ),
    Layout(
        paper="vico",
        number=4,
        caption="ViCO, Table 4: first-token throughput of the language model, relative to no compression.",
        heads=(_MODEL, Head(title="Input", source="variant")),
        quantities=tuple(
            Quantity(
                benchmark="LLM first-token throughput",
                setting=f"token compression {share}",
                title=share,
                group="Token compression",
                unit="×",
                is_score=False,
            )
            for share in ("0%", "25%", "50%", "75%")
        ),
    ),
    _vico(5, "the smallest models on image benchmarks.", _scores(*_VICO_IMAGES)),
    _vico(6, "the smallest models on several images and videos.", _VICO_SEVERAL),
)

_TWELVE = (
    *("TextVQA", "DocVQA", "ChartQA", "InfoVQA", "GQA", "VQAv2"),
    *("VizWiz", "MMBench", "MMVet", "MMMU", "POPE", "SEED-IMG"),
)
_SIX = ("TextVQA", "DocVQA", "GQA", "VizWiz", "MMVet", "POPE")
_TOKENS = Quantity(benchmark="visual tokens per image", title="Tokens", is_score=False)
_HOURS = Quantity(benchmark="training time", title="Training (h)", is_score=False)


def _mean(benchmarks: tuple[str, ...]) -> Average:
    # The second decimal is cut off in places (62.1358 is printed as 62.13), so a whole unit of it.
    return Average(benchmarks=benchmarks, digits=2, tolerance=0.01)


_SIX_NOTE = f"{AVERAGE} of {', '.join(_SIX)}, as printed: the table has no scores to recompute it from."

_INTERNVL_X = (
    Layout(
        paper="internvl-x",
        number=1,
        caption="InternVL-X, Table 1: comparison with other models, above at low and below at high resolution.",
        heads=(
            Head(title="Model", source="model", is_merged=True),
            Head(title="LLM", source="LLM"),
            Head(title="PT/IT", source="PT/IT"),
        ),
        quantities=(_TOKENS, *_scores(*_TWELVE), _AVERAGE),
        average=_mean(_TWELVE),
        group_starts=("Monkey",),
        systems={
            "InternVL2, LLM=Internlm2-1.8B; PT/IT=558K/665K": "InternVL2-2B, Base",
            "InternVL2, LLM=Internlm2.5-7B; PT/IT=558K/665K": "InternVL2-8B, Base",
            "InternVL-X, LLM=Internlm2-1.8B; PT/IT=558K/665K": "InternVL2-2B, + PVTC + LVTC, no flash attention",
            "InternVL2-HD, LLM=Internlm2-1.8B; PT/IT=558K/770K": "InternVL2-2B, Base-HD",
            "InternVL2-HD, LLM=Internlm2.5-7B; PT/IT=558K/770K": "InternVL2-8B, Base-HD",
            "InternVL-X-HD, LLM=Internlm2-1.8B; PT/IT=558K/770K": "InternVL2-2B, Full Model, no flash attention",
        },
        # Ours cut images into tiles, as those at high resolution do.
        rows_of={"internvl_x_base": {"model": "InternVL2-HD"}, "internvl_x_full": {"model": "InternVL-X-HD"}},
        model_field="LLM",
        notes=("PT/IT: samples of pre-training and instruction tuning. *: training set visible. ~: about.",),
    ),
    Layout(
        paper="internvl-x",
        number=2,
        caption="InternVL-X, Table 2: its parts on InternVL2-2B.",
        heads=(
            Head(title="Model", source="variant"),
            Head(title="Flash attention", source="remark", names={"yes": "no", "no": "yes"}),
        ),
        quantities=(
            _TOKENS,
            _AVERAGE,
            _HOURS,
            Quantity(benchmark="inference time", title="Inference (ms a token)", is_score=False),
        ),
        average=_mean(_SIX),
        group_by="variant",
        group_starts=("+ PVTC", "+ RVTC"),
        references=("Base", "Base-HD"),
        remark="no flash attention",
        notes=(_SIX_NOTE, "~: about."),
    ),
    Layout(
        paper="internvl-x",
        number=3,
        caption="InternVL-X, Table 3: attention layers of PVTC, InternVL2-2B.",
        heads=(
            Head(title="Model", source="variant", is_merged=True),
            Head(title="Global layers", source="global attention layers"),
            Head(title="Local layers", source="local attention layers"),
            Head(title="CLS scale", source="remark"),
        ),
        quantities=(*_scores(*_SIX), _AVERAGE),
        average=_mean(_SIX),
        group_by="variant",
        references=("Base",),
        remark="learnable CLS scale",
        systems={
            "InternVL2-2B, Base, global attention layers=0; local attention layers=0": "InternVL2-2B, Base",
            "InternVL2-2B, PVTC, global attention layers=1; local attention layers=1, learnable CLS scale": (
                "InternVL2-2B, + PVTC"
            ),
        },
    ),
    Layout(
        paper="internvl-x",
        number=4,
        caption="InternVL-X, Table 4: tokens before and from layer k on, and the projectors of LVTC.",
        heads=(
            _MODEL,
            Head(title="Variant", source="variant", is_merged=True),
            Head(title="Tokens before k", source="tokens in layers 0..k-1"),
            Head(title="from k", source="tokens in layers k..last"),
            Head(title="HR projector", source="HR projector"),
            Head(title="Multi projector", source="multi projector"),
        ),
        quantities=(_AVERAGE,),
        average=_mean(_SIX),
        references=("Base",),
        systems={
            f"{model}, {variant}, tokens in layers 0..k-1={before}; tokens in layers k..last={behind}; "
            f"HR projector={projectors}; multi projector={projectors}": f"{model}, {system}"
            for model in ("InternVL2-2B", "InternVL2-8B")
            for variant, before, behind, projectors, system in (
                ("Base", 256, 256, "no", "Base"),
                ("Base", 1024, 1024, "no", "Base, no flash attention"),
                ("LVTC", 256, 1024, "yes", "+ LVTC, no flash attention"),
            )
        },
        notes=(_SIX_NOTE,),
    ),
    Layout(
        paper="internvl-x",
        number=5,
        caption="InternVL-X, Table 5: ways to choose the tiles, at most six an image.",
        heads=(_MODEL, _VARIANT),
        quantities=(
            Quantity(benchmark="tiles per image", title="Tiles", is_score=False),
            _TOKENS,
            _HOURS,
            _AVERAGE,
        ),
        average=_mean(_SIX),
        references=("Base-ratio",),
        systems={
            f"{model}, {variant}": f"{model}, {system}"
            for model in ("InternVL2-2B", "InternVL2-8B")
            for variant, system in (("Base-ratio", "Base-HD"), ("RVTC-edge", "+ RVTC"))
        },
        notes=(_SIX_NOTE,),
    ),
)

LAYOUTS = (*_VICO, *_INTERNVL_X)


def layouts(paper: str | None = None, number: int | None = None) -> list[Layout]:
    """The tables of a paper or of both, all of them or those of a number.

    Raises:
        ConfigError: there is no such paper or table.
    """
    if paper is not None and paper not in PAPERS:
        raise unknown_name("paper", paper, PAPERS)
    own = [layout for layout in LAYOUTS if paper in (None, layout.paper)]
    chosen = [layout for layout in own if number in (None, layout.number)]
    if not chosen:
        known = ", ".join(f"{layout.number} ({PAPERS[layout.paper]})" for layout in own)
        raise ConfigError(f"There is no published table {number}; known are {known}.")
    return chosen
