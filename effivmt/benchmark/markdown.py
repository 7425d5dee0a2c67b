"""results.md: the tables of a comparison, as the README and the documentation show them."""

from collections.abc import Iterable, Mapping, Sequence

from effivmt.benchmark.claims import UNTESTED, ClaimRecord
from effivmt.benchmark.measures import MEASURES
from effivmt.benchmark.methods import METHODS, OURS
from effivmt.benchmark.results import Estimates, Failure, MethodSummary, Refusal, Summary
from effivmt.benchmark.statistics import Estimate, as_estimate

MOTION = (
    "motion_fidelity",
    "two_sided_motion_fidelity",
    "foreground_motion_fidelity",
    "trajectory_error",
    "motion_amount",
)
LOOKS = (
    "text_similarity",
    "appearance_leakage",
    "reference_resemblance",
    "background_leakage",
    "temporal_consistency",
    "sharpness",
    "flicker",
)
COST = ("seconds", "preparing_seconds", "rendering_seconds", "processor_seconds", "peak_bytes")
SUMMARY = (
    "motion_fidelity",
    "two_sided_motion_fidelity",
    "trajectory_error",
    "text_similarity",
    "appearance_leakage",
    "background_leakage",
    "processor_seconds",
)
"""Measures in the first table, without intervals."""
COMPARED = (
    "motion_fidelity",
    "foreground_motion_fidelity",
    "trajectory_error",
    "text_similarity",
    "appearance_leakage",
    "reference_resemblance",
    "background_leakage",
    "seconds",
    "processor_seconds",
)
"""Measures in the tables of differences."""
HEADINGS = {
    "method": "Methods",
    "variant": "Variants",
    "ablation": "Ablations",
    "control": "Controls",
    "sweep": "Sweeps",
}


def markdown(summary: Summary) -> str:
    """The document of a summary."""
    methods, parts = summary["methods"], [_head(summary), f"## Summary\n\n{summary_table(summary)}"]
    for kind, heading in HEADINGS.items():
        names = [name for name, method in methods.items() if method["kind"] == kind]
        if names:
            shown = names if OURS in names else [OURS, *names]
            parts.append(f"## {heading}")
            parts += [_estimates(methods, shown, group) for group in (MOTION, LOOKS, COST)]
    parts += [_differences(methods), f"## The paper's claims\n\n{_claims(summary['claims'])}"]
    by_class = {name: method["by_class"] for name, method in methods.items()}
    by_looks = {name: method["by_looks"] for name, method in methods.items()}
    if classes := _split(methods, by_class, ("motion_fidelity", "trajectory_error")):
        parts.append(f"## By class of motion\n\n{classes}")
    if looks := _split(methods, by_looks, ("appearance_leakage", "reference_resemblance")):
        parts.append(f"## Clips whose caption names every look (said), and the others (unsaid)\n\n{looks}")
    return "\n\n".join(parts + _missing(summary)) + "\n"


def brief(summary: Summary) -> str:
    """A short document of a summary: its first table, the differences, the claims that were tested, the figures by
    class, what methods cannot make, and what failed."""
    methods, parts = summary["methods"], [_head(summary), summary_table(summary)]
    parts.append(_differences(methods))
    if tested := [claim for claim in summary["claims"] if claim["verdict"] != UNTESTED]:
        parts.append(f"## The paper's claims\n\n{_claims(tested)}")
    by_class = {name: method["by_class"] for name, method in methods.items()}
    if classes := _split(methods, by_class, ("motion_fidelity", "trajectory_error", "background_leakage")):
        parts.append(f"## By class of motion\n\n{classes}")
    return "\n\n".join(parts + _missing(summary)) + "\n"


def summary_table(summary: Summary) -> str:
    """The means of all methods with two decimals, as the README shows them."""
    methods = summary["methods"]
    measures = [name for name in SUMMARY if any(name in method["estimates"] for method in methods.values())]
    rows = [
        [
            _title(methods, name),
            *(_rounded(measure, as_estimate(method["estimates"].get(measure))) for measure in measures),
        ]
        for name, method in methods.items()
    ]
    return _table(["", *map(_heading, measures)], rows)


def number(measure: str, value: float, *, signed: bool = False) -> str:
    """A value as the tables show it: seconds with one decimal, memory in MB, all else with three decimals."""
    sign = "+" if signed else ""
    if measure == "peak_bytes":
        return f"{value / 1e6:{sign},.0f}"
    return f"{value:{sign},.1f}" if measure.endswith("seconds") else f"{value:{sign}.3f}"


def cell(measure: str, found: Estimate | None, *, signed: bool = False) -> str:
    """`mean [low, high]`; a difference is bold where its interval excludes 0."""
    if found is None:
        return "–"
    text = number(measure, found.mean, signed=signed)
    if found.low is None or found.high is None:
        return text
    text += f" [{number(measure, found.low, signed=signed)}, {number(measure, found.high, signed=signed)}]"
    return f"**{text}**" if signed and found.excludes_zero else text


def _rounded(measure: str, found: Estimate | None) -> str:
    if found is None:
        return "–"
    return number(measure, found.mean) if measure.endswith("seconds") else f"{found.mean:.2f}"


def _head(summary: Summary) -> str:
    commit = f", commit {summary['commit']}" if summary["commit"] else ""
    workers = "1 worker" if summary["workers"] == 1 else f"{summary['workers']} workers of one thread"
    seeds = f" × {summary['seeds']} seeds" if summary["seeds"] > 1 else ""
    return f"""# Comparison on {summary["suite"]}

{summary["clips"]} clips, {summary["prompts"]} prompts in all{seeds}; backbone {summary["backbone"]} \
({summary["backbone_digest"][:12]}); effivmt {summary["version"]}{commit}; {workers}.

Means over clips with {summary["level"]:.0%} bootstrap intervals over clips ({summary["draws"]:,} draws). ↑ higher is \
better, ↓ lower is better."""


def _estimates(methods: Mapping[str, MethodSummary], names: Sequence[str], measures: Sequence[str]) -> str:
    found = {name: methods[name]["estimates"] for name in names}
    measures = [measure for measure in measures if any(measure in own for own in found.values())]
    rows = [
        [_title(methods, name), *(cell(measure, as_estimate(found[name].get(measure))) for measure in measures)]
        for name in names
    ]
    clips = [max(own[measure]["clips"] for own in found.values() if measure in own) for measure in measures]
    notes = [f" ({count} clips)" if count < max(clips) else "" for count in clips]
    return _table(["", *(_heading(measure) + note for measure, note in zip(measures, notes, strict=True))], rows)


def _differences(methods: Mapping[str, MethodSummary]) -> str:
    rows = []
    for name, method in methods.items():
        for other, found in method["differences"].items():
            values = [cell(measure, as_estimate(found.get(measure)), signed=True) for measure in COMPARED]
            rows.append([_title(methods, name), _title(methods, other), *values])
    if not rows:
        return "## Paired differences\n\nThere is nothing to compare EffiVMT with."
    return (
        "## Paired differences\n\nThe first less the second, by clip, prompt and seed; bold where the interval "
        f"excludes 0.\n\n{_table(['', 'less', *map(_heading, COMPARED)], rows)}"
    )


def claim_evidence(claim: ClaimRecord) -> str:
    """The estimate that decides a claim, "EffiVMT less SMM: +0.10 [0.05, 0.15]"; empty where it is not tested."""
    found = as_estimate(claim["estimate"])
    if claim["verdict"] == UNTESTED or found is None:
        return ""
    first, other = METHODS[claim["first"]].title, claim["other"]
    if other is None:
        return f"{first}: {cell(claim['measure'], found)}"
    if claim["times"]:
        ends = "" if found.low is None else f" [{found.low:.2f}, {found.high:.2f}]"
        return f"{first} over {METHODS[other].title}: {found.mean:.2f}{ends}"
    return f"{first} less {METHODS[other].title}: {cell(claim['measure'], found, signed=True)}"


def _claims(claims: Sequence[ClaimRecord]) -> str:
    rows = [[claim["claim"], claim["verdict"], claim_evidence(claim)] for claim in claims]
    return "Of several methods the one that speaks most against the claim is shown.\n\n" + _table(
        ["", "verdict", "by"], rows
    )


def _split(
    methods: Mapping[str, MethodSummary], estimates: Mapping[str, Mapping[str, Estimates]], measures: Sequence[str]
) -> str:
    """One table for each measure that there is, with a column for each part of the clips; empty without parts.

    estimates: by method and part, the same parts for each method.
    """
    tables = []
    parts = list(next(iter(estimates.values())))
    for measure in measures if parts else ():
        if not any(measure in found for own in estimates.values() for found in own.values()):
            continue
        rows = [
            [_title(methods, name), *(_of_part(methods[name], part, measure, own[part]) for part in parts)]
            for name, own in estimates.items()
        ]
        tables.append(_table([_heading(measure), *parts], rows))
    return "\n\n".join(tables)


def _of_part(method: MethodSummary, part: str, measure: str, found: Estimates) -> str:
    """The value of a part of the clips; "cannot" where the method can make nothing of it."""
    refused = any(part in refusal["classes"] for refusal in method.get("cannot", []))
    return "cannot" if refused and not found else cell(measure, as_estimate(found.get(measure)))


def _missing(summary: Summary) -> list[str]:
    """What methods cannot make, and what failed."""
    parts = []
    if refusals := [refusal for method in summary["methods"].values() for refusal in method.get("cannot", [])]:
        parts.append(_refusals(refusals))
    if summary["failures"]:
        parts.append(_failures(summary["failures"]))
    return parts


def _refusals(refusals: Iterable[Refusal]) -> str:
    listed = [
        f"- {refusal['reason']}: {', '.join(refusal['clips'])} (cells: {refusal['cells']})" for refusal in refusals
    ]
    return (
        "## What methods cannot do\n\nThese cells are in no mean: the means of a method are over the clips that it can "
        "do.\n\n" + "\n".join(listed)
    )


def _failures(failures: Iterable[Failure]) -> str:
    listed = [
        f"- {failure['method']} on {failure['clip']} ({failure['cells']} cells): {failure['error']}"
        for failure in failures
    ]
    return "## Failed\n\nFailed cells are in no mean.\n\n" + "\n".join(listed)


def _title(methods: Mapping[str, MethodSummary], name: str) -> str:
    """The method's title, with the numbers of the cells that it cannot make and of those that failed."""
    method, notes = methods[name], []
    if refused := sum(refusal["cells"] for refusal in method.get("cannot", [])):
        notes.append(f"cannot make {refused} of {method['cells']} cells")
    if method["failed"]:
        notes.append(f"{method['failed']} of {method['cells']} cells failed")
    return method["title"] + (f" ({', '.join(notes)})" if notes else "")


def _heading(measure: str) -> str:
    if measure not in MEASURES:
        return measure.replace("_", " ")
    return MEASURES[measure].label + {"higher": " ↑", "lower": " ↓", "": ""}[MEASURES[measure].better]


def _table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table whose first column is text and whose others are numbers; `|` in a text is escaped."""
    rule = ["---", *["---:"] * (len(headings) - 1)]
    lines = [headings, rule, *([text.replace("|", "\\|") for text in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
