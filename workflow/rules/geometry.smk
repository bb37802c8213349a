rule meshes:
    input:
        manifests("meshes"),


rule points:
    input:
        manifests("points"),


rule extract_meshes:
    input:
        fused=fused_chunk,
        checked=f"{RESULTS}/qc/manifest/{{chunk}}.tsv",
        cases=CHUNK_CASES,
        label_table=[COHORT.labels] if COHORT.labels else [],
    output:
        f"{RESULTS}/meshes/manifest/{{chunk}}.tsv",
    log:
        f"{LOGS}/extract_meshes/{{chunk}}.log",
    benchmark:
        f"{LOGS}/benchmark/extract_meshes/{{chunk}}.tsv"
    conda:
        "../envs/geometry.yaml"
    threads: chunk_threads
    resources:
        mem_mb=lambda wildcards, threads, attempt: 1500 * threads * attempt,
    params:
        script=script("extract_meshes.py"),
        flags=flags("meshes"),
        label_table=labels_flag,
        select=chunk_cases,
        out=folder_of_stage,
    shell:
        "python {params.script:q} --cases {input.cases:q} --select {params.select}"
        " --out {params.out} --manifest {output} --processes {threads}"
        " {params.label_table} {params.flags} 2>&1 | tee {log}"


rule sample_sdf:
    input:
        fused=fused_chunk,
        meshes=f"{RESULTS}/meshes/manifest/{{chunk}}.tsv",
        checked=f"{RESULTS}/qc/manifest/{{chunk}}.tsv",
        cases=CHUNK_CASES,
        label_table=[COHORT.labels] if COHORT.labels else [],
    output:
        f"{RESULTS}/points/manifest/{{chunk}}.tsv",
    log:
        f"{LOGS}/sample_sdf/{{chunk}}.log",
    benchmark:
        f"{LOGS}/benchmark/sample_sdf/{{chunk}}.tsv"
    conda:
        "../envs/geometry.yaml"
    threads: chunk_threads
    resources:
        mem_mb=lambda wildcards, threads, attempt: 1500 * threads * attempt,
    params:
        script=script("sample_sdf.py"),
        flags=flags("points"),
        label_table=labels_flag,
        select=chunk_cases,
        meshes=folder_of_meshes,
        out=folder_of_stage,
    shell:
        "python {params.script:q} --cases {input.cases:q} --select {params.select}"
        " --meshes {params.meshes} --out {params.out} --manifest {output}"
        " --processes {threads} {params.label_table} {params.flags} 2>&1 | tee {log}"
