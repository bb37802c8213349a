# New cases have a table of their own: the cohort's trainings know nothing of them.
APPLIED = f"{RESULTS}/applied"


rule apply:
    input:
        f"{APPLIED}/summary.csv",


rule apply_models:
    input:
        table=lambda wildcards: if_fit(apply_possible, NEW_TABLE),
        files=new_files,
    output:
        f"{APPLIED}/manifest/{{chunk}}.tsv",
    log:
        f"{LOGS}/apply_models/{{chunk}}.log",
    benchmark:
        f"{LOGS}/benchmark/apply_models/{{chunk}}.tsv"
    conda:
        "../envs/apply.yaml"
    threads: 4
    resources:
        gpu=1,
        mem_mb=16000,
        runtime=480,
    params:
        launcher=script("launch.py"),
        script=script("apply_models.py"),
        flags=flags("apply", table="", models=()),
        models=lambda wildcards: " ".join(shlex.quote(str(folder)) for folder in MODELS),
        select=lambda wildcards: " ".join(NEW_CHUNKS[wildcards.chunk]),
        # not for the script
        stamps=models_as_they_are,
        out=folder_of_stage,
    shell:
        one_process(
            " --models {params.models} --table {input.table:q} --select {params.select}"
            " --out {params.out} --manifest {output} {params.flags}"
        )


rule collect_applied:
    input:
        lambda wildcards: if_fit(
            apply_possible, expand(f"{APPLIED}/manifest/{{chunk}}.tsv", chunk=NEW_CHUNKS)
        ),
    output:
        f"{APPLIED}/summary.csv",
    log:
        f"{LOGS}/collect_applied.log",
    localrule: True
    conda:
        "../envs/geometry.yaml"
    params:
        script=script("collect_applied.py"),
        applied=folder_of_output,
    shell:
        "python {params.script:q} --manifest {input:q} --applied {params.applied} --out {output}"
        " 2>&1 | tee {log}"
