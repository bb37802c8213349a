# One page about what `all` makes; the script takes whatever else lies in the results folder as well.
# Where a call asks for a target of those below, too, the page waits for it. What they made before
# is brought up to date with the page, but for what is learned from all cases: that would be learned
# again for every new case, so the page shows it as it is.
MEASURED = {
    "measures": [f"{RESULTS}/measures/{name}.csv" for name in ("norms", "zscores")],
}
LEARNED = {
    "statistics": [
        f"{RESULTS}/shape_statistics/{name}" for name in ("model.npz", "statistics.json")
    ],
    "coronary": [f"{THIN}/refined/metrics.json"] if HAS_STRUCTURE else [],
    "fused": [f"{RESULTS}/fused/summary.json"] if HAS_STRUCTURE else [],
    "vqvae_windows": [f"{RESULTS}/{route}/reconstructions/metrics.json" for route in WINDOW_ROUTES],
    "vessels": [f"{VESSELS}/model/metrics.json"],
    "set_diffusion": [f"{RESULTS}/set_diffusion/model/metrics.json"],
}


rule report:
    input:
        f"{RESULTS}/report.html",


rule write_report:
    input:
        f"{RESULTS}/qc/cohort.json",
        rules.vecset.input,
        rules.vqvae.input,
        rules.ldm.input,
        lambda wildcards: [*asked_for(MEASURED, or_there=True), *asked_for(LEARNED)],
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
        stamps=lambda wildcards: stamps_beside(LEARNED),
    shell:
        "python {params.script:q} --results {params.results} --out {output:q}"
        " {params.label_table} --name {params.name:q} 2>&1 | tee {log}"
