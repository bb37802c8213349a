# One page about what `all` makes; the script takes whatever else lies in the results folder as well.
rule report:
    input:
        f"{RESULTS}/report.html",


rule write_report:
    input:
        f"{RESULTS}/qc/cohort.json",
        rules.vecset.input,
        rules.vqvae.input,
        rules.ldm.input,
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
    shell:
        "python {params.script:q} --results {params.results} --out {output:q}"
        " {params.label_table} --name {params.name:q} 2>&1 | tee {log}"
