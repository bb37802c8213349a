# folder of the trainings on CT windows -> its windows
TOGETHER = "vqvae_windows/together"
WINDOW_ROUTES = (
    {TOGETHER: [*WINDOWS]}
    if OPTIONS["windows"].together
    else {f"vqvae_windows/{window}": [window] for window in WINDOWS}
)
# folder of a route's trainings -> folders of its samples
ROUTES = {"vqvae": [VOXELS]} | {
    route: [REGIONS.format(window=window) for window in windows]
    for route, windows in WINDOW_ROUTES.items()
}
# Label maps and their meshes where there are such; else the voxels themselves are the truth.
TRUTH = (
    {}
    if FROM_MESHES
    else {
        "vqvae": {"cases": CASE_LIST, "meshes": manifests("meshes"), "label_table": LABEL_TABLE},
    }
)


wildcard_constraints:
    route="vqvae|vqvae_windows/[A-Za-z0-9_]+",


rule vqvae:
    input:
        f"{RESULTS}/vqvae/stage2/model.pt",
        f"{RESULTS}/vqvae/reconstructions/metrics.json",


rule vqvae_windows:
    input:
        expand(f"{RESULTS}/{{route}}/stage2/model.pt", route=WINDOW_ROUTES),
        expand(f"{RESULTS}/{{route}}/reconstructions/metrics.json", route=WINDOW_ROUTES),


# As in train_vecset only the final files are outputs: checkpoints must outlive a failure.
rule pretrain_vqvae:
    input:
        train=f"{OF_SPLIT}split/train.csv",
        validation=f"{OF_SPLIT}split/val.csv",
        samples=samples_of_level,
        before=known_before,
        trial=trial_file,
    output:
        model=f"{OF_TRIAL}{{route}}/stage0{{coarse}}/model.pt",
        metrics=f"{OF_TRIAL}{{route}}/stage0{{coarse}}/metrics.json",
    log:
        f"{LOGS}/{{fold}}{{trial}}pretrain_vqvae{{coarse}}/{{route}}.log",
    benchmark:
        f"{LOGS}/benchmark/{{fold}}{{trial}}pretrain_vqvae{{coarse}}/{{route}}.tsv"
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
        network=lambda wildcards: flags(
            "vqvae", **tried(wildcards, "vqvae") | voxels_of_level(wildcards)
        )
        + windows_of_route(wildcards),
        flags=lambda wildcards: flags(
            "vqvae_pretrain", **tried(wildcards, "vqvae_pretrain") | of_level(wildcards)
        )
        + start_of(wildcards),
        out=folder_and_labels,
    shell:
        training(
            " --train {input.train:q} --validation {input.validation:q} --manifest {input.samples:q}"
            " --out {params.out} {params.network} {params.flags}"
        )


rule train_codebook:
    input:
        weights=lambda wildcards: OPTIONS["vqvae"].pretrained
        or f"{RESULTS}/{wildcards.fold}{wildcards.route}/stage0/model.pt",
        train=f"{OF_SPLIT}split/train.csv",
        validation=f"{OF_SPLIT}split/val.csv",
        samples=samples_of_route,
        trial=trial_file,
    output:
        model=f"{OF_TRIAL}{{route}}/stage1/model.pt",
        metrics=f"{OF_TRIAL}{{route}}/stage1/metrics.json",
    log:
        f"{LOGS}/{{fold}}{{trial}}train_codebook/{{route}}.log",
    benchmark:
        f"{LOGS}/benchmark/{{fold}}{{trial}}train_codebook/{{route}}.tsv"
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
        network=lambda wildcards: flags("vqvae") + windows_of_route(wildcards),
        flags=lambda wildcards: flags("vqvae_codebook", **tried(wildcards, "vqvae_codebook")),
        out=folder_and_labels,
    shell:
        training(
            " --weights {input.weights:q} --train {input.train:q} --validation {input.validation:q}"
            " --manifest {input.samples:q} --out {params.out}"
            " {params.network} {params.flags}"
        )


rule train_vqvae:
    input:
        weights=f"{OF_SPLIT}{{route}}/stage1/model.pt",
        train=f"{OF_SPLIT}split/train.csv",
        validation=f"{OF_SPLIT}split/val.csv",
        samples=samples_of_route,
        trial=trial_file,
    output:
        model=f"{OF_TRIAL}{{route}}/stage2/model.pt",
        metrics=f"{OF_TRIAL}{{route}}/stage2/metrics.json",
    log:
        f"{LOGS}/{{fold}}{{trial}}train_vqvae/{{route}}.log",
    benchmark:
        f"{LOGS}/benchmark/{{fold}}{{trial}}train_vqvae/{{route}}.tsv"
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
        network=lambda wildcards: flags("vqvae") + windows_of_route(wildcards),
        flags=lambda wildcards: flags("vqvae_joint", **tried(wildcards, "vqvae_joint")),
        out=folder_and_labels,
    shell:
        training(
            " --weights {input.weights:q} --train {input.train:q} --validation {input.validation:q}"
            " --manifest {input.samples:q} --out {params.out}"
            " {params.network} {params.flags}"
        )


rule reconstruct_vqvae:
    input:
        unpack(lambda wildcards: TRUTH.get(wildcards.route, {})),
        model=f"{OF_SPLIT}{{route}}/stage2/model.pt",
        stage1=f"{OF_SPLIT}{{route}}/stage1/model.pt",
        continuous=lambda wildcards: OPTIONS["vqvae"].pretrained
        or f"{RESULTS}/{wildcards.fold}{wildcards.route}/stage0/model.pt",
        splits=expand(f"{OF_SPLIT}split/{{part}}.csv", part=["val", "test"], allow_missing=True),
        samples=samples_of_route,
    output:
        f"{OF_SPLIT}{{route}}/reconstructions/metrics.json",
    log:
        f"{LOGS}/{{fold}}reconstruct_vqvae/{{route}}.log",
    benchmark:
        f"{LOGS}/benchmark/{{fold}}reconstruct_vqvae/{{route}}.tsv"
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
        truth=lambda wildcards, input: (
            f"--cases {input.cases} --meshes {folder_of_meshes(wildcards, input)} {labels_flag()}"
            if wildcards.route in TRUTH
            else ""
        ),
        out=folder_of_output,
    shell:
        one_process(
            " --model {input.model:q} --stage1 {input.stage1:q}"
            " --continuous {input.continuous:q} --validation {input.splits[0]:q}"
            " --test {input.splits[1]:q} --manifest {input.samples:q} {params.truth}"
            " --out {params.out} {params.flags}"
        )
