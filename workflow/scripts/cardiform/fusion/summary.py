"""What fusion and its rules changed over a cohort (standard library only)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from ..errors import again
from ..formats import Format
from ..tables import names_width

REPORT = Format(
    "fusion-report",
    {
        "labels": "text",
        "replaced": "object",
        "rules": "object (R)",
        "rules.*.rule": "text",
        "rules.*.components": "integer",
        "rules.*.voxels": "object",
        "rules.*.skipped?": "text",
        "rules.*.taken_true?": "object",
        "rules.*.taken_false?": "object",
        "rules.*.added_true?": "object",
        "rules.*.added_false?": "object",
        "classes": "object",
        "classes.*.voxels_before": "integer",
        "classes.*.voxels_after": "integer",
        "classes.*.dice_before_after": "number",
        "classes.*.components_before": "integer",
        "classes.*.components_after": "integer",
        "classes.*.components_expected": "integer",
        "classes.*.components_fewest?": "integer",
        "classes.*.components_most?": "integer",
        "classes.*.cut?": "bool",
        "classes.*.dice_given?": "number",
        "classes.*.dice_fused?": "number",
        "classes.*.cl_dice_given?": "number",
        "classes.*.cl_dice_fused?": "number",
        "classes.*.components_truth?": "integer",
    },
    again("fuse_labels"),
    marked=False,
)
MOST_CHANGED = 10  # cases that the summary names per class
VERDICTS = ("taken_true", "taken_false", "added_true", "added_false")
FIGURES = ("dice_given", "dice_fused", "cl_dice_given", "cl_dice_fused")


def summarise(reports: Mapping[str, Mapping]) -> dict:
    """From the JSON of every case (:func:`cardiform.fusion.cases.fuse_case`).

    Returns
    -------
    cases : their number.
    rules : rule -> cases that it changed, components that it took, voxels per class. Over the
        ``cases_with_truth`` also voxels per class that were taken and added, in the truth and not
        (taken_true, taken_false, added_true, added_false), and ``harmed``: case -> class -> voxels
        that were taken or added wrongly beyond those rightly, where there are such.
    classes : class -> cases that have it, cases with another number of components than expected
        before and after, and the cases that changed most (Dice of before and after). Of a class
        that the scan cuts no number of components is expected; ``cut`` counts such cases. Where a
        truth is known: ``against_truth``, the number of cases, means of Dice and clDice of the
        given and the fused label map, and the case whose Dice lost most.
    """
    rules: dict[str, dict] = {}
    classes: dict[str, dict] = {}
    for case_id, report in sorted(reports.items()):
        for found in report["rules"]:
            _add_rule(rules, case_id, found)
        for name, found in report["classes"].items():
            _add_class(classes, case_id, name, found)
    for kind in classes.values():
        order = sorted(kind.pop("changed").items(), key=lambda item: item[1])
        kind["changed_cases"] = len(order)
        kind["most_changed"] = dict(order[:MOST_CHANGED])
        if judged := kind.pop("judged"):
            kind["against_truth"] = _against_truth(judged)
    return {"cases": len(reports), "rules": rules, "classes": classes}


def _add_rule(rules: dict[str, dict], case_id: str, found: Mapping) -> None:
    rule = rules.setdefault(found["rule"], {"cases": 0, "components": 0, "voxels": {}})
    rule["cases"] += bool(found["voxels"])
    rule["components"] += found["components"]
    _add(rule["voxels"], found["voxels"])
    if not all(key in found for key in VERDICTS):
        return
    rule["cases_with_truth"] = rule.get("cases_with_truth", 0) + 1
    for key in VERDICTS:
        _add(rule.setdefault(key, {}), found[key])
    harm: dict[str, int] = {}
    _add(harm, found["taken_true"], found["added_false"])
    for key in ("taken_false", "added_true"):
        _add(harm, {name: -voxels for name, voxels in found[key].items()})
    if harm := {name: voxels for name, voxels in harm.items() if voxels > 0}:
        rule.setdefault("harmed", {})[case_id] = harm


def _add(total: dict[str, int], *more: Mapping[str, int]) -> None:
    for counts in more:
        for name, voxels in counts.items():
            total[name] = total.get(name, 0) + voxels


def _add_class(classes: dict[str, dict], case_id: str, name: str, found: Mapping) -> None:
    kind = classes.setdefault(
        name,
        {"cases": 0, "unexpected_before": 0, "unexpected_after": 0, "changed": {}, "judged": {}},
    )
    kind["cases"] += 1
    usual = found["components_expected"]
    fewest = found.get("components_fewest", usual)
    most = found.get("components_most", usual)
    if found.get("cut"):
        kind["cut"] = kind.get("cut", 0) + 1
    else:
        kind["unexpected_before"] += not fewest <= found["components_before"] <= most
        kind["unexpected_after"] += not fewest <= found["components_after"] <= most
    if found["dice_before_after"] < 1:
        kind["changed"][case_id] = found["dice_before_after"]
    if "dice_given" in found and "dice_fused" in found:
        kind["judged"][case_id] = found


def _against_truth(judged: Mapping[str, Mapping]) -> dict:
    """Means over the cases that have both, and the case that lost most."""
    result: dict = {"cases": len(judged)}
    for given, fused in (FIGURES[:2], FIGURES[2:]):
        both = [f for f in judged.values() if given in f and fused in f]
        for key in (given, fused) if both else ():
            result[key] = sum(f[key] for f in both) / len(both)
    change = {case: f["dice_fused"] - f["dice_given"] for case, f in judged.items()}
    worst = min(change, key=lambda case: change[case])
    return {**result, "worst_case": worst, "worst_change": change[worst]}


def lines(summary: Mapping) -> Iterator[str]:
    """The summary as lines of text."""
    total = summary["cases"]
    for name, rule in summary["rules"].items():
        voxels = ", ".join(f"{n} {v:+,}" for n, v in rule["voxels"].items()) or "nothing"
        yield f"{name}: {rule['cases']} of {total} cases, voxels {voxels}"
        if "cases_with_truth" in rule:
            counts = {key: sum(rule[key].values()) for key in VERDICTS}
            if any(counts.values()):
                yield (
                    "    against the truth: took {taken_true:,} true and {taken_false:,} false "
                    "voxels, added {added_true:,} true and {added_false:,} false".format(**counts)
                )
    width = names_width(summary["classes"])
    yield f"{'':{width}}{'changed':>9}{'parts as expected, before':>27}{'after':>7}"
    for name, kind in summary["classes"].items():
        whole = kind["cases"] - kind.get("cut", 0)
        before, after = (whole - kind[f"unexpected_{w}"] for w in ("before", "after"))
        yield f"{name:{width}}{kind['changed_cases']:>9}{before:>27}{after:>7}"
    yield from _figures(summary["classes"], width)


def _figures(classes: Mapping[str, Mapping], width: int) -> Iterator[str]:
    """What is known against the truth, class by class; ``width`` of the names."""
    known = {n: k["against_truth"] for n, k in classes.items() if "against_truth" in k}
    if known:
        yield f"{'against the truth':{width}}{'Dice given':>11}{'fused':>7}{'at worst':>10}" + (
            f"{'clDice given':>14}{'fused':>7}"
        )
    for name, found in known.items():
        texts = [f"{found[key]:.3f}" if key in found else "" for key in FIGURES]
        yield f"{name:{width}}{texts[0]:>11}{texts[1]:>7}{found['worst_change']:>+10.3f}" + (
            f"{texts[2]:>14}{texts[3]:>7}".rstrip()
        )
