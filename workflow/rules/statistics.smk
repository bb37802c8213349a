# How the hearts of the cohort vary. One script registers every heart and makes the model: the hearts that
# are finished lie in registered/, which is no output, so that they outlive a failure.
rule statistics:
    input:
        f"{RESULTS}/shape_statistics/model.npz",


rule shape_statistics:
    input:
        meshes=manifests("meshes"),
        cases=CASE_LIST,
        train=f"{RESULTS}/split/train.csv",
        validation=f"{RESULTS}/split/val.csv",
        test=f"{RESULTS}/split/test.csv",
        table=[CASE_TABLE] if OPTIONS["shape_statistics"].columns else [],
        label_table=LABEL_TABLE,
    output:
        model=f"{RESULTS}/shape_statistics/model.npz",
        template=f"{RESULTS}/shape_statistics/template.npz",
        scores=f"{RESULTS}/shape_statistics/scores.csv",
        figures=f"{RESULTS}/shape_statistics/statistics.json",
    log:
        f"{LOGS}/shape_statistics.log",
    benchmark:
        f"{LOGS}/benchmark/shape_statistics.tsv"
    conda:
        "../envs/geometry.yaml"
    threads: 4
    resources:
        mem_mb=lambda wildcards, attempt: 8000 * attempt,
        runtime=240,
    params:
        script=script("shape_statistics.py"),
        flags=flags("shape_statistics"),
        label_table=labels_flag,
        table=(f"--table {shlex.quote(CASE_TABLE)}" if OPTIONS["shape_statistics"].columns else ""),
        meshes=folder_of_meshes,
        out=folder_of_output,
    shell:
        "python {params.script:q} --cases {input.cases:q} --meshes {params.meshes}"
        " --train {input.train:q} --validation {input.validation:q} --test {input.test:q}"
        " {params.table} --out {params.out} --processes {threads} {params.label_table}"
        " {params.flags} 2>&1 | tee {log}"
