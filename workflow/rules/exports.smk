# By its name only: files for other programs, which nothing here reads.
rule exports:
    input:
        manifests("exports"),


rule export_shapes:
    input:
        fused=fused_chunk,
        meshes=f"{RESULTS}/meshes/manifest/{{chunk}}.tsv",
        checked=checked_chunk("labels"),
        cases=CHUNK_CASES,
        label_table=LABEL_TABLE,
    output:
        f"{RESULTS}/exports/manifest/{{chunk}}.tsv",
    log:
        f"{LOGS}/export_shapes/{{chunk}}.log",
    benchmark:
        f"{LOGS}/benchmark/export_shapes/{{chunk}}.tsv"
    conda:
        "../envs/geometry.yaml"
    threads: chunk_threads
    resources:
        mem_mb=lambda wildcards, threads, attempt: 3000 * threads * attempt,
    params:
        script=script("export_shapes.py"),
        flags=flags("exports"),
        label_table=labels_flag,
        select=chunk_cases,
        meshes=folder_of_meshes,
        out=folder_of_stage,
        # not for the script: another series runs the job
        series=series_of_chunk,
    shell:
        "python {params.script:q} --cases {input.cases:q} --select {params.select}"
        " --meshes {params.meshes} --out {params.out} --manifest {output}"
        " --processes {threads} {params.label_table} {params.flags} 2>&1 | tee {log}"
