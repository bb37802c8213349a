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
            "python {params.script} --out {params.out} --processes {threads} {params.flags}"
            " 2>&1 | tee {log}"


rule check_cohort:
    input:
        table=CASE_TABLE,
        files=(
            [path for case in CASES.values() for path in case.files]
            if IS_DEMO
            else existing(path for case in CASES.values() for path in case.files)
        ),
        label_table=[COHORT.labels] if COHORT.labels else [],
    output:
        cases=f"{RESULTS}/cases.tsv",
        qc=f"{RESULTS}/qc/cohort.json",
    log:
        f"{LOGS}/check_cohort.log",
    conda:
        "../envs/geometry.yaml"
    threads: 4
    params:
        script=script("check_cohort.py"),
        flags=flags("cohort", table=CASE_TABLE),
        out=folder_of_output,
    shell:
        "python {params.script} --out {params.out} --processes {threads} {params.flags}"
        " 2>&1 | tee {log}"


rule split_cohort:
    input:
        cases=f"{RESULTS}/cases.tsv",
    output:
        expand(f"{RESULTS}/split/{{part}}.csv", part=["train", "val", "test"]),
    log:
        f"{LOGS}/split_cohort.log",
    conda:
        "../envs/geometry.yaml"
    params:
        script=script("split_cohort.py"),
        flags=flags("split"),
        points=f"{RESULTS}/points",
        out=folder_of_output,
    shell:
        "python {params.script} --cases {input.cases} --points {params.points}"
        " --out {params.out} {params.flags} 2>&1 | tee {log}"
