rule fused:
    input:
        [f"{RESULTS}/fused/cases.tsv"] if HAS_STRUCTURE else [],


rule fuse_labels:
    input:
        refined=f"{THIN}/refined/metrics.json",
        checked=checked_chunk("labels"),
        cases=ancient(f"{RESULTS}/cases.tsv"),
        label_table=LABEL_TABLE,
    output:
        f"{RESULTS}/fused/manifest/{{chunk}}.tsv",
    log:
        f"{LOGS}/fuse_labels/{{chunk}}.log",
    benchmark:
        f"{LOGS}/benchmark/fuse_labels/{{chunk}}.tsv"
    conda:
        "../envs/geometry.yaml"
    threads: chunk_threads
    resources:
        mem_mb=lambda wildcards, threads, attempt: 4000 * threads * attempt,
    params:
        script=script("fuse_labels.py"),
        flags=flags("fusion"),
        masks=f"{THIN.name}={THIN}/refined",
        label_table=labels_flag,
        select=chunk_cases,
        out=folder_of_stage,
    shell:
        "python {params.script:q} --cases {input.cases:q} --select {params.select}"
        " --masks {params.masks} --out {params.out} --manifest {output}"
        " --processes {threads} {params.label_table} {params.flags} 2>&1 | tee {log}"


rule collect_fused:
    input:
        manifests=manifests("fused"),
        cases=f"{RESULTS}/cases.tsv",
    output:
        cases=f"{RESULTS}/fused/cases.tsv",
        summary=f"{RESULTS}/fused/summary.json",
    log:
        f"{LOGS}/collect_fused.log",
    localrule: True
    conda:
        "../envs/geometry.yaml"
    params:
        script=script("collect_fused.py"),
        out=folder_of_output,
    shell:
        "python {params.script:q} --cases {input.cases:q} --manifest {input.manifests:q}"
        " --out {params.out} 2>&1 | tee {log}"
