"""What fusion and its rules changed over a cohort (standard library only)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from ..errors import again
from ..formats import Format

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
    },
    again("fuse_labels"),
    marked=False,
)
MOST_CHANGED = 10  # cases that the summary names per class


def summarise(reports: Mapping[str, Mapping]) -> dict:
    """From the JSON of every case (:func:`cardiform.fusion.cases.fuse_case`).

    Returns
    -------
    cases : their number.
    rules : rule -> cases that it changed, components that it took, voxels per class.
    classes : class -> cases that have it, cases with another number of components than expected
        before and after, and the cases that changed most (Dice of before and after). Of a class
        that the scan cuts no number of components is expected; ``cut`` counts such cases.
    """
    rules: dict[str, dict] = {}
    classes: dict[str, dict] = {}
    for case_id, report in sorted(reports.items()):
        for found in report["rules"]:
            rule = rules.setdefault(found["rule"], {"cases": 0, "components": 0, "voxels": {}})
            rule["cases"] += bool(found["voxels"])
            rule["components"] += found["components"]
            for name, voxels in found["voxels"].items():
                rule["voxels"][name] = rule["voxels"].get(name, 0) + voxels
        for name, found in report["classes"].items():
            kind = classes.setdefault(
                name, {"cases": 0, "unexpected_before": 0, "unexpected_after": 0, "changed": {}}
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
    for kind in classes.values():
        order = sorted(kind["changed"].items(), key=lambda item: item[1])
        kind["changed_cases"] = len(order)
        kind["most_changed"] = dict(order[:MOST_CHANGED])
        del kind["changed"]
    return {"cases": len(reports), "rules": rules, "classes": classes}


def lines(summary: Mapping) -> Iterator[str]:
    """The summary as lines of text."""
    total = summary["cases"]
    for name, rule in summary["rules"].items():
        voxels = ", ".join(f"{n} {v:+,}" for n, v in rule["voxels"].items()) or "nothing"
        yield f"{name}: {rule['cases']} of {total} cases, voxels {voxels}"
    yield f"{'':24}{'changed':>9}{'parts as expected, before':>27}{'after':>7}"
    for name, kind in summary["classes"].items():
        whole = kind["cases"] - kind.get("cut", 0)
        before, after = (whole - kind[f"unexpected_{w}"] for w in ("before", "after"))
        yield f"{name[:23]:24}{kind['changed_cases']:>9}{before:>27}{after:>7}"
