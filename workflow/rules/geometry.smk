VOXELS = f"sparse/{OPTIONS['voxels'].resolution}"
REGIONS = f"windows/{{window}}/{OPTIONS['windows'].resolution}"
RESOLUTIONS = {
    *(OPTIONS[section].resolution for section in ("voxels", "windows")),
    *OPTIONS["vqvae_pretrain"].coarser,
}


wildcard_constraints:
    window="[A-Za-z0-9_]+",
    resolution="|".join(map(str, sorted(RESOLUTIONS))),


rule meshes:
    input:
        manifests("meshes"),


rule points:
    input:
        manifests("points"),


rule voxels:
    input:
        manifests(VOXELS),


rule extract_meshes:
    input:
        fused=fused_chunk,
        checked=checked_chunk("labels"),
        cases=CHUNK_CASES,
        label_table=LABEL_TABLE,
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
        label_table=LABEL_TABLE,
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


# A folder per resolution: another one is made beside it, not instead.
if FROM_MESHES:

    rule voxelize_meshes:
        input:
            checked=f"{RESULTS}/qc/manifest/{{chunk}}.tsv",
            cases=ancient(f"{RESULTS}/cases.tsv"),
        output:
            f"{RESULTS}/sparse/{{resolution}}/manifest/{{chunk}}.tsv",
        log:
            f"{LOGS}/voxelize_meshes/{{resolution}}/{{chunk}}.log",
        benchmark:
            f"{LOGS}/benchmark/voxelize_meshes/{{resolution}}/{{chunk}}.tsv"
        conda:
            "../envs/geometry.yaml"
        threads: chunk_threads
        resources:
            mem_mb=lambda wildcards, threads, attempt: 3000 * threads * attempt,
        params:
            script=script("voxelize_meshes.py"),
            flags=lambda wildcards: flags("voxels", resolution=int(wildcards.resolution)),
            select=chunk_cases,
            out=folder_of_stage,
        shell:
            "python {params.script:q} --cases {input.cases:q} --select {params.select}"
            " --out {params.out} --manifest {output} --processes {threads}"
            " {params.flags} 2>&1 | tee {log}"

else:

    rule voxelize_labels:
        input:
            fused=fused_chunk,
            meshes=f"{RESULTS}/meshes/manifest/{{chunk}}.tsv",
            checked=f"{RESULTS}/qc/manifest/{{chunk}}.tsv",
            cases=CHUNK_CASES,
            label_table=LABEL_TABLE,
        output:
            f"{RESULTS}/sparse/{{resolution}}/manifest/{{chunk}}.tsv",
        log:
            f"{LOGS}/voxelize_labels/{{resolution}}/{{chunk}}.log",
        benchmark:
            f"{LOGS}/benchmark/voxelize_labels/{{resolution}}/{{chunk}}.tsv"
        conda:
            "../envs/geometry.yaml"
        threads: chunk_threads
        resources:
            mem_mb=lambda wildcards, threads, attempt: 3000 * threads * attempt,
        params:
            script=script("voxelize_labels.py"),
            flags=lambda wildcards: flags("voxels", resolution=int(wildcards.resolution)),
            label_table=labels_flag,
            select=chunk_cases,
            meshes=folder_of_meshes,
            out=folder_of_stage,
        shell:
            "python {params.script:q} --cases {input.cases:q} --select {params.select}"
            " --meshes {params.meshes} --out {params.out} --manifest {output}"
            " --processes {threads} {params.label_table} {params.flags} 2>&1 | tee {log}"


rule window_ct:
    input:
        checked=checked_chunk("" if OPTIONS["windows"].volumes else "image"),
        cases=ancient(f"{RESULTS}/cases.tsv"),
    output:
        f"{RESULTS}/windows/{{window}}/{{resolution}}/manifest/{{chunk}}.tsv",
    log:
        f"{LOGS}/window_ct/{{window}}/{{resolution}}/{{chunk}}.log",
    benchmark:
        f"{LOGS}/benchmark/window_ct/{{window}}/{{resolution}}/{{chunk}}.tsv"
    conda:
        "../envs/geometry.yaml"
    threads: chunk_threads
    resources:
        mem_mb=lambda wildcards, threads, attempt: 8000 * threads * attempt,
    params:
        script=script("window_ct.py"),
        # of its own window: the others do not concern its jobs
        flags=lambda wildcards: flags(
            "windows",
            windows=(str(WINDOWS[wildcards.window]),),
            together=False,
            linked=False,
            resolution=int(wildcards.resolution),
        ),
        select=chunk_cases,
        out=folder_of_stage,
    shell:
        "python {params.script:q} --cases {input.cases:q} --select {params.select}"
        " --out {params.out} --manifest {output} --processes {threads}"
        " {params.flags} 2>&1 | tee {log}"
