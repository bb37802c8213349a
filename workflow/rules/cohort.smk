if IS_DEMO:

    rule make_demo_cohort:
        output:
            table=CASE_TABLE,
            files=[path for case in CASES.values() for path in case.files],
        log:
            f"{LOGS}/make_demo_cohort.log",
        conda:
            "../envs/geometry.yaml"
        threads: 2
        params:
            script=script("make_demo_cohort.py"),
            flags=flags("demo"),
            out=folder_of_output,
        shell:
            "python {params.script:q} --out {params.out} --processes {threads} {params.flags}"
            " 2>&1 | tee {log}"


# A chunk's job says what is in its files; everything else of the chunk follows from its manifest,
# so a new or changed case sends its own chunk round again and no other.
rule check_cases:
    input:
        files=chunk_files,
        table=ancient(CASE_TABLE),
        label_table=LABEL_TABLE,
    output:
        f"{RESULTS}/qc/manifest/{{chunk}}.tsv",
    log:
        f"{LOGS}/check_cases/{{chunk}}.log",
    conda:
        "../envs/geometry.yaml"
    threads: chunk_threads
    resources:
        mem_mb=lambda wildcards, threads, attempt: 2000 * threads * attempt,
    params:
        script=script("check_cases.py"),
        label_table=labels_flag,
        select=chunk_cases,
        # not for the script: a path that changes runs the job, whether there is a file or not
        rows=chunk_rows,
        out=folder_of_stage,
    shell:
        "python {params.script:q} --cases {input.table:q} --select {params.select}"
        " --out {params.out} --manifest {output} --processes {threads}"
        " {params.label_table} 2>&1 | tee {log}"


# Tables made in a second or two are localrules: on a cluster the controller makes them itself, as
# it takes the targets.
# The judge of the cohort, before any compute is spent. Chunk stages read its cases.tsv as
# ancient(), so a verdict on another case does not rerun them. It is a checkpoint for one reason:
# Snakemake does not re-examine jobs tied to a running job only by ancient(); after a checkpoint
# it re-examines all.
checkpoint check_cohort:
    input:
        table=CASE_TABLE,
        manifests=manifests("qc"),
        label_table=LABEL_TABLE,
    output:
        cases=f"{RESULTS}/cases.tsv",
        qc=f"{RESULTS}/qc/cohort.json",
    log:
        f"{LOGS}/check_cohort.log",
    # What is wrong with the files is reported once, whatever a profile says.
    retries: 0
    localrule: True
    conda:
        "../envs/geometry.yaml"
    params:
        script=script("check_cohort.py"),
        # which targets belong together is not for the script
        flags=flags("cohort", table=CASE_TABLE, with_set_diffusion=False),
        out=folder_of_output,
    shell:
        "python {params.script:q} --out {params.out} --manifest {input.manifests:q}"
        " {params.flags} 2>&1 | tee {log}"


rule split_cohort:
    input:
        cases=lambda wildcards: if_fit(lambda: split_possible(wildcards), f"{RESULTS}/cases.tsv"),
    output:
        expand(f"{OF_SPLIT}split/{{part}}.csv", part=["train", "val", "test"], allow_missing=True),
    log:
        f"{LOGS}/{{fold}}split_cohort.log",
    localrule: True
    conda:
        "../envs/geometry.yaml"
    params:
        script=script("split_cohort.py"),
        flags=lambda wildcards: cli.flags(split_of(wildcards)),
        points=f"{RESULTS}/points",
        out=folder_of_output,
    shell:
        "python {params.script:q} --cases {input.cases:q} --points {params.points}"
        " --out {params.out} {params.flags} 2>&1 | tee {log}"
