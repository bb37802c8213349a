# Measures of every heart, and what they say of the cohort. The tree of the thin structure comes from
# its own stage; a label table without that structure has no tree to measure.
HAS_TREES = OPTIONS["coronary_trace"].structure in TABLE.names


rule measures:
    input:
        f"{RESULTS}/measures/measures.csv",


rule measure_shapes:
    input:
        fused=fused_chunk,
        meshes=f"{RESULTS}/meshes/manifest/{{chunk}}.tsv",
        trees=f"{RESULTS}/{TREES}/manifest/{{chunk}}.tsv" if HAS_TREES else [],
        checked=checked_chunk("labels"),
        cases=CHUNK_CASES,
        label_table=LABEL_TABLE,
    output:
        f"{RESULTS}/measures/manifest/{{chunk}}.tsv",
    log:
        f"{LOGS}/measure_shapes/{{chunk}}.log",
    benchmark:
        f"{LOGS}/benchmark/measure_shapes/{{chunk}}.tsv"
    conda:
        "../envs/geometry.yaml"
    threads: chunk_threads
    resources:
        mem_mb=lambda wildcards, threads, attempt: 3000 * threads * attempt,
    params:
        script=script("measure_shapes.py"),
        flags=flags("measures"),
        label_table=labels_flag,
        select=chunk_cases,
        meshes=folder_of_meshes,
        trees=f"--trees {RESULTS}/{TREES}" if HAS_TREES else "",
        out=folder_of_stage,
    shell:
        "python {params.script:q} --cases {input.cases:q} --select {params.select}"
        " --meshes {params.meshes} {params.trees} --out {params.out} --manifest {output}"
        " --processes {threads} {params.label_table} {params.flags} 2>&1 | tee {log}"


rule collect_measures:
    input:
        manifests=manifests("measures"),
        cases=CASE_LIST,
        table=[CASE_TABLE] if OPTIONS["norms"].groups else [],
        reference=[OPTIONS["norms"].reference] if OPTIONS["norms"].reference else [],
    output:
        measures=f"{RESULTS}/measures/measures.csv",
        norms=f"{RESULTS}/measures/norms.csv",
        zscores=f"{RESULTS}/measures/zscores.csv",
        groups=f"{RESULTS}/measures/groups.csv",
    log:
        f"{LOGS}/collect_measures.log",
    localrule: True
    conda:
        "../envs/geometry.yaml"
    params:
        script=script("collect_measures.py"),
        flags=flags("norms"),
        table=f"--table {shlex.quote(CASE_TABLE)}" if OPTIONS["norms"].groups else "",
        out=folder_of_output,
    shell:
        "python {params.script:q} --cases {input.cases:q} --manifest {input.manifests:q}"
        " {params.table} --out {params.out} {params.flags} 2>&1 | tee {log}"
