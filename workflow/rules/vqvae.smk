rule voxels:
    input:
        manifests(VOXELS),


rule vqvae:
    input:
        f"{RESULTS}/vqvae/stage2/model.pt",
        f"{RESULTS}/vqvae/reconstructions/metrics.json",


rule vqvae_windows:
    input:
        expand(f"{RESULTS}/vqvae_windows/{{window}}/stage2/model.pt", window=WINDOWS),
        expand(f"{RESULTS}/vqvae_windows/{{window}}/reconstructions/metrics.json", window=WINDOWS),


# A folder per resolution: another one is made beside it, not instead.
rule voxelize_labels:
    input:
        fused=fused_chunk,
        meshes=f"{RESULTS}/meshes/manifest/{{chunk}}.tsv",
        checked=f"{RESULTS}/qc/manifest/{{chunk}}.tsv",
        cases=CHUNK_CASES,
        label_table=[COHORT.labels] if COHORT.labels else [],
    output:
        f"{RESULTS}/{VOXELS}/manifest/{{chunk}}.tsv",
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
        "python {params.script:q} --cases {input.cases:q} --select {params.select}"
        " --meshes {params.meshes} --out {params.out} --manifest {output}"
        " --processes {threads} {params.label_table} {params.flags} 2>&1 | tee {log}"


rule window_ct:
    input:
        checked=f"{RESULTS}/qc/manifest/{{chunk}}.tsv",
        cases=ancient(f"{RESULTS}/cases.tsv"),
    output:
        f"{RESULTS}/{REGIONS}/manifest/{{chunk}}.tsv",
    log:
        f"{LOGS}/window_ct/{{window}}/{{chunk}}.log",
    benchmark:
        f"{LOGS}/benchmark/window_ct/{{window}}/{{chunk}}.tsv"
    conda:
        "../envs/geometry.yaml"
    threads: chunk_threads
    resources:
        mem_mb=lambda wildcards, threads, attempt: 8000 * threads * attempt,
    params:
        script=script("window_ct.py"),
        flags=lambda wildcards: flags("windows", windows=(definition(wildcards.window),)),
        select=chunk_cases,
        out=folder_of_stage,
    shell:
        "python {params.script:q} --cases {input.cases:q} --select {params.select}"
        " --out {params.out} --manifest {output} --processes {threads}"
        " {params.flags} 2>&1 | tee {log}"


# As in train_vecset only the final files are outputs: checkpoints must outlive a failure.
rule pretrain_vqvae:
    input:
        train=f"{RESULTS}/split/train.csv",
        validation=f"{RESULTS}/split/val.csv",
        samples=samples_of_route,
    output:
        model=f"{RESULTS}/{{route}}/stage0/model.pt",
        metrics=f"{RESULTS}/{{route}}/stage0/metrics.json",
    log:
        f"{LOGS}/pretrain_vqvae/{{route}}.log",
    benchmark:
        f"{LOGS}/benchmark/pretrain_vqvae/{{route}}.tsv"
    conda:
        "../envs/torch.yaml"
    threads: 8
    resources:
        gpu=1,
        nodes=1,
        mem_mb=32000,
        runtime=1440,
    params:
        launcher=script("launch.py"),
        script=script("pretrain_vqvae.py"),
        network=flags("vqvae"),
        flags=flags("vqvae_pretrain"),
        out=folder_of_output,
    shell:
        "python {params.launcher:q} --gpus {resources.gpu} --nodes {resources.nodes}"
        " --minutes {resources.runtime} {params.script:q}"
        " --train {input.train:q} --validation {input.validation:q} --manifest {input.samples:q}"
        " --out {params.out} {params.network} {params.flags} 2>&1 | tee {log}"


rule train_codebook:
    input:
        weights=continuous_weights,
        train=f"{RESULTS}/split/train.csv",
        validation=f"{RESULTS}/split/val.csv",
        samples=samples_of_route,
    output:
        model=f"{RESULTS}/{{route}}/stage1/model.pt",
        metrics=f"{RESULTS}/{{route}}/stage1/metrics.json",
    log:
        f"{LOGS}/train_codebook/{{route}}.log",
    benchmark:
        f"{LOGS}/benchmark/train_codebook/{{route}}.tsv"
    conda:
        "../envs/torch.yaml"
    threads: 8
    resources:
        gpu=1,
        nodes=1,
        mem_mb=32000,
        runtime=480,
    params:
        launcher=script("launch.py"),
        script=script("train_codebook.py"),
        network=flags("vqvae"),
        flags=flags("vqvae_codebook"),
        out=folder_of_output,
    shell:
        "python {params.launcher:q} --gpus {resources.gpu} --nodes {resources.nodes}"
        " --minutes {resources.runtime} {params.script:q}"
        " --weights {input.weights:q} --train {input.train:q} --validation {input.validation:q}"
        " --manifest {input.samples:q} --out {params.out}"
        " {params.network} {params.flags} 2>&1 | tee {log}"


rule train_vqvae:
    input:
        weights=f"{RESULTS}/{{route}}/stage1/model.pt",
        train=f"{RESULTS}/split/train.csv",
        validation=f"{RESULTS}/split/val.csv",
        samples=samples_of_route,
    output:
        model=f"{RESULTS}/{{route}}/stage2/model.pt",
        metrics=f"{RESULTS}/{{route}}/stage2/metrics.json",
    log:
        f"{LOGS}/train_vqvae/{{route}}.log",
    benchmark:
        f"{LOGS}/benchmark/train_vqvae/{{route}}.tsv"
    conda:
        "../envs/torch.yaml"
    threads: 8
    resources:
        gpu=1,
        nodes=1,
        mem_mb=32000,
        runtime=1440,
    params:
        launcher=script("launch.py"),
        script=script("train_vqvae.py"),
        network=flags("vqvae"),
        flags=flags("vqvae_joint"),
        out=folder_of_output,
    shell:
        "python {params.launcher:q} --gpus {resources.gpu} --nodes {resources.nodes}"
        " --minutes {resources.runtime} {params.script:q}"
        " --weights {input.weights:q} --train {input.train:q} --validation {input.validation:q}"
        " --manifest {input.samples:q} --out {params.out}"
        " {params.network} {params.flags} 2>&1 | tee {log}"


rule reconstruct_vqvae:
    input:
        unpack(truth_of_route),
        model=f"{RESULTS}/{{route}}/stage2/model.pt",
        stage1=f"{RESULTS}/{{route}}/stage1/model.pt",
        continuous=continuous_weights,
        splits=expand(f"{RESULTS}/split/{{part}}.csv", part=["val", "test"]),
        samples=samples_of_route,
    output:
        f"{RESULTS}/{{route}}/reconstructions/metrics.json",
    log:
        f"{LOGS}/reconstruct_vqvae/{{route}}.log",
    benchmark:
        f"{LOGS}/benchmark/reconstruct_vqvae/{{route}}.tsv"
    conda:
        "../envs/torch.yaml"
    threads: 8
    resources:
        gpu=1,
        mem_mb=16000,
        runtime=240,
    params:
        launcher=script("launch.py"),
        script=script("reconstruct_vqvae.py"),
        flags=flags("vqvae_reconstruct"),
        truth=truth_flags,
        out=folder_of_output,
    shell:
        "python {params.launcher:q} --gpus {resources.gpu} --single {params.script:q}"
        " --model {input.model:q} --stage1 {input.stage1:q}"
        " --continuous {input.continuous:q} --validation {input.splits[0]:q}"
        " --test {input.splits[1]:q} --manifest {input.samples:q} {params.truth}"
        " --out {params.out} {params.flags} 2>&1 | tee {log}"
