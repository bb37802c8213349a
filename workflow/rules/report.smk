# One page about what `all` makes; the script takes whatever else lies in the results folder as well.
# Where a call asks for a target of those below, too, the page waits for it. What they made before
# is brought up to date with the page, but for what takes a training: that would be trained again
# for every new case, so the page shows it as it is.
TABLES = {
    "measures": [f"{RESULTS}/measures/{name}.csv" for name in ("norms", "zscores")],
    "statistics": [f"{RESULTS}/shape_statistics/{name}" for name in ("model.npz", "statistics.json")],
}
TRAINED = {
    "coronary": [f"{THIN}/refined/metrics.json"] if HAS_STRUCTURE else [],
    "fused": [f"{RESULTS}/fused/summary.json"] if HAS_STRUCTURE else [],
    "vqvae_windows": [
        f"{RESULTS}/vqvae_windows/{window}/reconstructions/metrics.json" for window in WINDOWS
    ],
}


def is_asked_for(target, files):
    """Whether this call names a target, or its files."""
    settings = workflow.dag_settings
    return not {target, *files}.isdisjoint(settings.targets if settings else ())


def shown_beside(wildcards):
    tables = [
        path
        for target, files in TABLES.items()
        for path in files
        if os.path.exists(path) or is_asked_for(target, files)
    ]
    trained = [files for target, files in TRAINED.items() if is_asked_for(target, files)]
    return [*tables, *(path for files in trained for path in files)]


def trained_as_they_are(wildcards):
    """Path, size and time of what is there and no input: where it has changed the page is written."""
    asked = shown_beside(wildcards)
    paths = [path for files in TRAINED.values() for path in files if path not in asked]
    found = [(path, os.stat(path)) for path in existing(paths)]
    return [[path, stat.st_size, stat.st_mtime_ns] for path, stat in found]


rule report:
    input:
        f"{RESULTS}/report.html",


rule write_report:
    input:
        f"{RESULTS}/qc/cohort.json",
        rules.vecset.input,
        rules.vqvae.input,
        rules.ldm.input,
        shown_beside,
    output:
        report(f"{RESULTS}/report.html", category="Cardiform", caption="../report/page.rst"),
    log:
        f"{LOGS}/write_report.log",
    conda:
        "../envs/geometry.yaml"
    resources:
        mem_mb=8000,
    params:
        script=script("write_report.py"),
        results=folder_of_output,
        label_table=labels_flag,
        name=COHORT.name,
        # not for the script
        stamps=trained_as_they_are,
    shell:
        "python {params.script:q} --results {params.results} --out {output:q}"
        " {params.label_table} --name {params.name:q} 2>&1 | tee {log}"
