LDM = f"{RESULTS}/ldm"
PARTS = ["train", "val", "test"]
# One HDF5 file needs no case table, and its samples have a split of their own.
ONE_FILE = OPTIONS["pointclouds"].file
# A folder of voxels may be split already.
IS_SPLIT = bool(ONE_FILE) and os.path.isdir(os.path.join(ONE_FILE, "train"))
OWN_SPLIT = f"{LDM}/pointclouds/{'voxels/split' if IS_SPLIT else 'split'}"
OF_SOURCE = f"{OF_SPLIT}ldm/{{source}}"
# The latents of all training cases lie in memory.
DIFFUSION_MB = diffusion_mb(
    *(OPTIONS[name] for name in ("ldm", "autoencoder", "latents", "diffusion")), len(CASES)
)
# Completion compares with label maps, and makes a class from the others.
COMPLETES = (
    "labels" in OPTIONS["ldm"].sources
    and OPTIONS["diffusion"].known_share
    and len({*TABLE.names} - {*OPTIONS["ldm"].drop_classes}) > 1
)


VESSELS = f"{LDM}/labels/vessels"


wildcard_constraints:
    source="labels|pointclouds",


rule ldm:
    input:
        expand(f"{LDM}/{{source}}/samples/figures.json", source=OPTIONS["ldm"].sources),
        [f"{LDM}/labels/completion/metrics.json"] if COMPLETES else [],


# By its name only: it trains a model of its own, and needs a cohort with the structure.
rule vessels:
    input:
        f"{VESSELS}/figures.json",


# Of a process: the shares of ten classes took 930 MB at 128³, and grow with the voxels.
SHARES_MB = max(2000, round(1200 * (OPTIONS["ldm"].voxel_size / 128) ** 3))


rule resample_labels:
    input:
        maps=manifests("fused") if COHORT.use_refined else checked_chunks("labels"),
        cases=CASE_LIST,
        label_table=LABEL_TABLE,
    output:
        manifest=f"{LDM}/labels/voxels/manifest.tsv",
        grid=f"{LDM}/labels/voxels/grid.json",
    log:
        f"{LOGS}/resample_labels.log",
    benchmark:
        f"{LOGS}/benchmark/resample_labels.tsv"
    conda:
        "../envs/geometry.yaml"
    threads: 8
    resources:
        mem_mb=lambda wildcards, threads, attempt: SHARES_MB * threads * attempt,
    params:
        script=script("resample_labels.py"),
        flags=flags("ldm", sources=("labels",)),
        label_table=labels_flag,
        out=folder_of_output,
    shell:
        "python {params.script:q} --cases {input.cases:q} --out {params.out}"
        " --manifest {output.manifest} --processes {threads}"
        " {params.label_table} {params.flags} 2>&1 | tee {log}"


rule convert_pointclouds:
    input:
        clouds=ONE_FILE or checked_chunks("pointcloud"),
        cases=[] if ONE_FILE else f"{RESULTS}/cases.tsv",
        label_table=LABEL_TABLE,
    output:
        manifest=f"{LDM}/pointclouds/voxels/manifest.tsv",
        grid=f"{LDM}/pointclouds/voxels/grid.json",
        cases=[f"{LDM}/pointclouds/voxels/cases.tsv"] if ONE_FILE else [],
        split=expand(f"{OWN_SPLIT}/{{part}}.csv", part=PARTS) if IS_SPLIT else [],
    log:
        f"{LOGS}/convert_pointclouds.log",
    benchmark:
        f"{LOGS}/benchmark/convert_pointclouds.tsv"
    conda:
        "../envs/geometry.yaml"
    threads: 8
    resources:
        mem_mb=lambda wildcards, threads, attempt: 2000 * threads * attempt,
    params:
        script=script("convert_pointclouds.py"),
        flags=flags("ldm", sources=("pointclouds",)),
        clouds=flags("pointclouds"),
        cases=lambda wildcards, input: f"--cases {input.cases}" if input.cases else "",
        label_table=labels_flag,
        out=folder_of_output,
    shell:
        "python {params.script:q} {params.cases} --out {params.out}"
        " --manifest {output.manifest} --processes {threads}"
        " {params.label_table} {params.flags} {params.clouds} 2>&1 | tee {log}"


# The samples of one HDF5 file are no cases of the cohort: they are split by themselves.
use rule split_cohort as split_pointclouds with:
    input:
        cases=f"{LDM}/pointclouds/voxels/cases.tsv",
    output:
        expand(f"{LDM}/pointclouds/split/{{part}}.csv", part=PARTS),
    log:
        f"{LOGS}/split_pointclouds.log",
    params:
        script=script("split_cohort.py"),
        flags=flags("split"),
        points=lambda wildcards, input: str(Path(input.cases).parent),
        out=folder_of_output,


# As in train_vecset only the final files are outputs: checkpoints must outlive a failure.
rule train_autoencoder:
    input:
        train=split_file("train"),
        validation=split_file("val"),
        manifest=f"{LDM}/{{source}}/voxels/manifest.tsv",
        grid=f"{LDM}/{{source}}/voxels/grid.json",
        trial=trial_file,
    output:
        model=f"{OF_TRIAL}ldm/{{source}}/autoencoder/model.pt",
        metrics=f"{OF_TRIAL}ldm/{{source}}/autoencoder/metrics.json",
    log:
        f"{LOGS}/{{fold}}{{trial}}train_autoencoder/{{source}}.log",
    benchmark:
        f"{LOGS}/benchmark/{{fold}}{{trial}}train_autoencoder/{{source}}.tsv"
    conda:
        "../envs/ldm.yaml"
    threads: 8
    resources:
        gpu=1,
        nodes=1,
        mem_mb=32000,
        runtime=1440,
    params:
        launcher=script("launch.py"),
        script=script("train_autoencoder.py"),
        flags=lambda wildcards: flags("autoencoder", **tried(wildcards, "autoencoder")),
        out=folder_of_output,
    shell:
        training(
            " --train {input.train:q} --validation {input.validation:q}"
            " --manifest {input.manifest:q} --grid {input.grid:q}"
            " --out {params.out} {params.flags}"
        )


rule encode_latents:
    input:
        autoencoder=f"{OF_SOURCE}/autoencoder/model.pt",
        voxels=f"{LDM}/{{source}}/voxels/manifest.tsv",
        train=split_file("train"),
        validation=split_file("val"),
        test=split_file("test"),
    output:
        manifest=f"{OF_SOURCE}/latents/manifest.tsv",
        statistics=f"{OF_SOURCE}/latents/statistics.json",
    log:
        f"{LOGS}/{{fold}}encode_latents/{{source}}.log",
    benchmark:
        f"{LOGS}/benchmark/{{fold}}encode_latents/{{source}}.tsv"
    conda:
        "../envs/ldm.yaml"
    threads: 8
    resources:
        gpu=1,
        mem_mb=16000,
        runtime=240,
    params:
        launcher=script("launch.py"),
        script=script("encode_latents.py"),
        flags=flags("latents"),
        out=folder_of_output,
    shell:
        one_process(
            " --autoencoder {input.autoencoder:q} --voxels {input.voxels:q}"
            " --train {input.train:q} --validation {input.validation:q} --test {input.test:q}"
            " --out {params.out} --manifest {output.manifest} {params.flags}"
        )


rule train_diffusion:
    input:
        train=split_file("train"),
        validation=split_file("val"),
        manifest=f"{OF_SOURCE}/latents/manifest.tsv",
        statistics=f"{OF_SOURCE}/latents/statistics.json",
        autoencoder=f"{OF_SOURCE}/autoencoder/model.pt",
        trial=trial_file,
    output:
        model=f"{OF_TRIAL}ldm/{{source}}/diffusion/model.pt",
        metrics=f"{OF_TRIAL}ldm/{{source}}/diffusion/metrics.json",
    log:
        f"{LOGS}/{{fold}}{{trial}}train_diffusion/{{source}}.log",
    benchmark:
        f"{LOGS}/benchmark/{{fold}}{{trial}}train_diffusion/{{source}}.tsv"
    conda:
        "../envs/ldm.yaml"
    threads: 8
    resources:
        gpu=1,
        nodes=1,
        mem_mb=max(32000, DIFFUSION_MB),
        runtime=1440,
    params:
        launcher=script("launch.py"),
        script=script("train_diffusion.py"),
        flags=lambda wildcards: flags("diffusion", **tried(wildcards, "diffusion")),
        out=folder_of_output,
    shell:
        training(
            " --train {input.train:q} --validation {input.validation:q}"
            " --manifest {input.manifest:q} --statistics {input.statistics:q}"
            " --autoencoder {input.autoencoder:q} --out {params.out} {params.flags}"
        )


# Without judges as in earlier versions: a command that changes is a reason to run a rule again.
MODEL_OF_SAMPLES = "{input.model:q}" if OPTIONS["sampling"].redraw else "{input:q}"


rule sample_diffusion:
    input:
        unpack(judges),
        model=f"{OF_SOURCE}/diffusion/model.pt",
    output:
        f"{OF_SOURCE}/samples/metrics.json",
    log:
        f"{LOGS}/{{fold}}sample_diffusion/{{source}}.log",
    benchmark:
        f"{LOGS}/benchmark/{{fold}}sample_diffusion/{{source}}.tsv"
    conda:
        "../envs/ldm.yaml"
    threads: 8
    resources:
        gpu=1,
        mem_mb=16000,
        runtime=240,
    params:
        launcher=script("launch.py"),
        script=script("sample_diffusion.py"),
        flags=lambda wildcards: with_files(flags("sampling"), judges(wildcards)),
        out=folder_of_output,
    shell:
        one_process(f" --model {MODEL_OF_SAMPLES} --out {{params.out}} {{params.flags}}")


rule evaluate_samples:
    input:
        samples=samples_as_label_maps(f"{OF_SOURCE}/samples/metrics.json"),
        voxels=f"{LDM}/{{source}}/voxels/manifest.tsv",
        grid=f"{LDM}/{{source}}/voxels/grid.json",
        latents=f"{OF_SOURCE}/latents/manifest.tsv",
        train=split_file("train"),
        test=split_file("test"),
    output:
        f"{OF_SOURCE}/samples/figures.json",
    log:
        f"{LOGS}/{{fold}}evaluate_samples/{{source}}.log",
    benchmark:
        f"{LOGS}/benchmark/{{fold}}evaluate_samples/{{source}}.tsv"
    conda:
        "../envs/ldm.yaml"
    threads: 4
    resources:
        mem_mb=16000,
        runtime=240,
    params:
        script=script("evaluate_samples.py"),
        flags=flags("generation"),
    shell:
        "python {params.script:q} --samples {input.samples:q} --voxels {input.voxels:q}"
        " --latents {input.latents:q} --grid {input.grid:q} --train {input.train:q}"
        " --test {input.test:q} --out {output} {params.flags} 2>&1 | tee {log}"


rule complete_labels:
    input:
        model=f"{OF_SPLIT}ldm/labels/diffusion/model.pt",
        voxels=f"{LDM}/labels/voxels/manifest.tsv",
        cases=CASE_LIST,
        train=f"{OF_SPLIT}split/train.csv",
        test=f"{OF_SPLIT}split/test.csv",
    output:
        f"{OF_SPLIT}ldm/labels/completion/metrics.json",
    log:
        f"{LOGS}/{{fold}}complete_labels.log",
    benchmark:
        f"{LOGS}/benchmark/{{fold}}complete_labels.tsv"
    conda:
        "../envs/ldm.yaml"
    threads: 8
    resources:
        gpu=1,
        mem_mb=16000,
        runtime=240,
    params:
        launcher=script("launch.py"),
        script=script("complete_labels.py"),
        flags=flags("completion"),
        out=folder_of_output,
    shell:
        one_process(
            " --model {input.model:q} --cases {input.cases:q}"
            " --voxels {input.voxels:q} --train {input.train:q} --test {input.test:q}"
            " --out {params.out} {params.flags}"
        )


# The trees of all cases, in the cubes of their hearts.
rule encode_vessels:
    input:
        maps=manifests("fused") if COHORT.use_refined else checked_chunks("labels"),
        cases=CASE_LIST,
        voxels=lambda wildcards: if_fit(vessels_possible, f"{LDM}/labels/voxels/manifest.tsv"),
        label_table=LABEL_TABLE,
    output:
        f"{VESSELS}/trees/manifest.tsv",
    log:
        f"{LOGS}/encode_vessels.log",
    benchmark:
        f"{LOGS}/benchmark/encode_vessels.tsv"
    conda:
        "../envs/geometry.yaml"
    threads: 8
    resources:
        mem_mb=lambda wildcards, threads, attempt: 3000 * threads * attempt,
    params:
        script=script("encode_vessels.py"),
        flags=flags("coronary_trace"),
        label_table=labels_flag,
        out=folder_of_output,
    shell:
        "python {params.script:q} --cases {input.cases:q} --voxels {input.voxels:q}"
        " --out {params.out} --manifest {output} --processes {threads}"
        " {params.label_table} {params.flags} 2>&1 | tee {log}"


rule train_vessels:
    input:
        train=f"{RESULTS}/split/train.csv",
        validation=f"{RESULTS}/split/val.csv",
        manifest=f"{VESSELS}/trees/manifest.tsv",
        voxels=f"{LDM}/labels/voxels/manifest.tsv",
        grid=f"{LDM}/labels/voxels/grid.json",
        latents=f"{LDM}/labels/latents/manifest.tsv",
        trial=trial_file,
    output:
        model=f"{RESULTS}/{{trial}}ldm/labels/vessels/model/model.pt",
        metrics=f"{RESULTS}/{{trial}}ldm/labels/vessels/model/metrics.json",
    log:
        f"{LOGS}/{{trial}}train_vessels.log",
    benchmark:
        f"{LOGS}/benchmark/{{trial}}train_vessels.tsv"
    conda:
        "../envs/ldm.yaml"
    threads: 8
    resources:
        gpu=1,
        nodes=1,
        mem_mb=32000,
        runtime=1440,
    params:
        launcher=script("launch.py"),
        script=script("train_vessels.py"),
        flags=lambda wildcards: flags("vessels", **tried(wildcards, "vessels")),
        out=folder_of_output,
    shell:
        training(
            " --train {input.train:q} --validation {input.validation:q}"
            " --manifest {input.manifest:q} --voxels {input.voxels:q} --grid {input.grid:q}"
            " --latents {input.latents:q} --out {params.out} {params.flags}"
        )


# Vessels in the hearts that were generated, and in those of test cases, whose own are known.
rule draw_vessels:
    input:
        model=f"{VESSELS}/model/model.pt",
        samples=samples_as_label_maps(f"{LDM}/labels/samples/metrics.json"),
        voxels=f"{LDM}/labels/voxels/manifest.tsv",
        test=f"{RESULTS}/split/test.csv",
        trees=f"{VESSELS}/trees/manifest.tsv",
        label_table=LABEL_TABLE,
    output:
        f"{VESSELS}/hearts/manifest.tsv",
    log:
        f"{LOGS}/draw_vessels.log",
    benchmark:
        f"{LOGS}/benchmark/draw_vessels.tsv"
    conda:
        "../envs/ldm.yaml"
    threads: 8
    resources:
        gpu=1,
        mem_mb=16000,
        runtime=240,
    params:
        launcher=script("launch.py"),
        script=script("draw_vessels.py"),
        flags=flags("vessel_drawing"),
        label_table=labels_flag,
        out=folder_of_output,
    shell:
        one_process(
            " --model {input.model:q} --samples {input.samples:q} --voxels {input.voxels:q}"
            " --test {input.test:q} --trees {input.trees:q} --out {params.out}"
            " --manifest {output} --processes {threads} {params.label_table} {params.flags}"
        )


rule evaluate_vessels:
    input:
        trees=f"{VESSELS}/trees/manifest.tsv",
        drawn=f"{VESSELS}/hearts/manifest.tsv",
        train=f"{RESULTS}/split/train.csv",
        test=f"{RESULTS}/split/test.csv",
    output:
        f"{VESSELS}/figures.json",
    log:
        f"{LOGS}/evaluate_vessels.log",
    conda:
        "../envs/ldm.yaml"
    resources:
        mem_mb=8000,
        runtime=60,
    params:
        script=script("evaluate_vessels.py"),
    shell:
        "python {params.script:q} --trees {input.trees:q} --drawn {input.drawn:q}"
        " --train {input.train:q} --test {input.test:q} --out {output} 2>&1 | tee {log}"
