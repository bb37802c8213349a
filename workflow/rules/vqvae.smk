VOXELS = f"{RESULTS}/sparse/{OPTIONS['voxels'].resolution}"


rule voxels:
    input:
        expand(f"{VOXELS}/manifest/{{chunk}}.tsv", chunk=CHUNKS),


# A folder per resolution: another one is made beside it, not instead.
rule voxelize_labels:
    input:
        labels=chunk_labels,
        meshes=f"{RESULTS}/meshes/manifest/{{chunk}}.tsv",
        cases=f"{RESULTS}/cases.tsv",
        label_table=[COHORT.labels] if COHORT.labels else [],
    output:
        f"{VOXELS}/manifest/{{chunk}}.tsv",
    log:
        f"{LOGS}/voxelize_labels/{{chunk}}.log",
    benchmark:
        f"{LOGS}/benchmark/voxelize_labels/{{chunk}}.tsv"
    conda:
        "../envs/geometry.yaml"
    threads: chunk_threads
    resources:
        mem_mb=lambda wildcards, threads, attempt: 3000 * threads * attempt,
    params:
        script=script("voxelize_labels.py"),
        flags=flags("voxels"),
        label_table=labels_flag,
        select=chunk_cases,
        meshes=folder_of_meshes,
        out=folder_of_stage,
    shell:
        "python {params.script} --cases {input.cases} --select {params.select}"
        " --meshes {params.meshes} --out {params.out} --manifest {output}"
        " --processes {threads} {params.label_table} {params.flags} 2>&1 | tee {log}"
