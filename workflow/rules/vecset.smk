# Made where the network was trained to complete.
COMPLETED_BY_VECSET = (
    [f"{RESULTS}/vecset/completion/metrics.json"] if OPTIONS["vecset"].hidden_share else []
)
GENERATED_BY_VECSET = (
    [f"{RESULTS}/set_diffusion/samples/figures.json"] if COHORT.with_set_diffusion else []
)


rule vecset:
    input:
        f"{RESULTS}/vecset/model.pt",
        f"{RESULTS}/vecset/reconstructions/metrics.json",
        COMPLETED_BY_VECSET,
        GENERATED_BY_VECSET,


# Only the final files are outputs: Snakemake deletes outputs before a job and after a failure,
# and the checkpoints beside them must outlive both.
rule train_vecset:
    input:
        train=f"{OF_SPLIT}split/train.csv",
        validation=f"{OF_SPLIT}split/val.csv",
        points=manifests("points"),
        label_table=LABEL_TABLE,
        weights=lambda wildcards: OPTIONS["vecset"].pretrained or [],
        trial=trial_file,
    output:
        model=f"{OF_TRIAL}vecset/model.pt",
        metrics=f"{OF_TRIAL}vecset/metrics.json",
    log:
        f"{LOGS}/{{fold}}{{trial}}train_vecset.log",
    benchmark:
        f"{LOGS}/benchmark/{{fold}}{{trial}}train_vecset.tsv"
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
        script=script("train_vecset.py"),
        flags=lambda wildcards: flags("vecset", **tried(wildcards, "vecset")),
        label_table=labels_flag,
        out=folder_of_output,
    shell:
        training(
            " --train {input.train:q} --validation {input.validation:q}"
            " --out {params.out} {params.label_table} {params.flags}"
        )


rule reconstruct_vecset:
    input:
        model=f"{OF_SPLIT}vecset/model.pt",
        splits=expand(
            f"{OF_SPLIT}split/{{part}}.csv", part=["train", "val", "test"], allow_missing=True
        ),
        points=manifests("points"),
        meshes=manifests("meshes"),
        cases=CASE_LIST,
    output:
        f"{OF_SPLIT}vecset/reconstructions/metrics.json",
    log:
        f"{LOGS}/{{fold}}reconstruct_vecset.log",
    benchmark:
        f"{LOGS}/benchmark/{{fold}}reconstruct_vecset.tsv"
    conda:
        "../envs/torch.yaml"
    threads: 8
    resources:
        gpu=1,
        mem_mb=16000,
        runtime=240,
    params:
        launcher=script("launch.py"),
        script=script("reconstruct_vecset.py"),
        flags=flags("vecset_reconstruct"),
        meshes=folder_of_meshes,
        out=folder_of_output,
    shell:
        one_process(
            " --model {input.model:q} --train {input.splits[0]:q}"
            " --validation {input.splits[1]:q} --test {input.splits[2]:q} --cases {input.cases:q}"
            " --meshes {params.meshes} --out {params.out} --metrics {output}"
            " {params.flags}"
        )


# Every class of every test case made from the others.
rule complete_vecset:
    input:
        model=f"{OF_SPLIT}vecset/model.pt",
        train=f"{OF_SPLIT}split/train.csv",
        test=f"{OF_SPLIT}split/test.csv",
        points=manifests("points"),
        cases=CASE_LIST,
    output:
        f"{OF_SPLIT}vecset/completion/metrics.json",
    log:
        f"{LOGS}/{{fold}}complete_vecset.log",
    benchmark:
        f"{LOGS}/benchmark/{{fold}}complete_vecset.tsv"
    conda:
        "../envs/apply.yaml"
    threads: 8
    resources:
        gpu=1,
        mem_mb=16000,
        runtime=240,
    params:
        launcher=script("launch.py"),
        script=script("complete_vecset.py"),
        flags=flags("vecset_reconstruct"),
        out=folder_of_output,
    shell:
        one_process(
            " --model {input.model:q} --train {input.train:q} --test {input.test:q}"
            " --cases {input.cases:q} --out {params.out} {params.flags}"
        )
