# Diffusion of a VecSet's latents. By its name, or with the VecSet
# (cohort.with_set_diffusion): it needs latents that have places.
SET_DIFFUSION = f"{RESULTS}/set_diffusion"
SET_COLUMNS = OPTIONS["set_latents"].columns


rule set_diffusion:
    input:
        f"{SET_DIFFUSION}/samples/figures.json",


# A VecSet holds all classes, thin ones too: hearts are judged on a grid of their own.
use rule resample_labels as resample_set_labels with:
    output:
        manifest=f"{SET_DIFFUSION}/voxels/manifest.tsv",
        grid=f"{SET_DIFFUSION}/voxels/grid.json",
    log:
        f"{LOGS}/resample_set_labels.log",
    benchmark:
        f"{LOGS}/benchmark/resample_set_labels.tsv"
    params:
        script=script("resample_labels.py"),
        flags=flags(
            "ldm",
            sources=("labels",),
            drop_classes=(),
            voxel_size=OPTIONS["set_latents"].voxel_size,
        ),
        label_table=labels_flag,
        out=folder_of_output,


rule encode_set_latents:
    input:
        vecset=lambda wildcards: if_fit(set_diffusion_possible, f"{RESULTS}/vecset/model.pt"),
        voxels=f"{SET_DIFFUSION}/voxels/manifest.tsv",
        grid=f"{SET_DIFFUSION}/voxels/grid.json",
        points=manifests("points"),
        train=f"{RESULTS}/split/train.csv",
        validation=f"{RESULTS}/split/val.csv",
        test=f"{RESULTS}/split/test.csv",
        table=[CASE_TABLE] if SET_COLUMNS else [],
    output:
        manifest=f"{SET_DIFFUSION}/latents/manifest.tsv",
        slots=f"{SET_DIFFUSION}/latents/slots.npz",
    log:
        f"{LOGS}/encode_set_latents.log",
    benchmark:
        f"{LOGS}/benchmark/encode_set_latents.tsv"
    conda:
        "../envs/apply.yaml"
    threads: 8
    resources:
        gpu=1,
        mem_mb=16000,
        runtime=240,
    params:
        launcher=script("launch.py"),
        script=script("encode_set_latents.py"),
        flags=flags("set_latents"),
        table=f"--table {shlex.quote(CASE_TABLE)}" if SET_COLUMNS else "",
        out=folder_of_output,
    shell:
        one_process(
            " --vecset {input.vecset:q} --voxels {input.voxels:q} --grid {input.grid:q}"
            " --train {input.train:q} --validation {input.validation:q} --test {input.test:q}"
            " {params.table} --out {params.out} --manifest {output.manifest} {params.flags}"
        )


rule train_set_diffusion:
    input:
        train=f"{RESULTS}/split/train.csv",
        validation=f"{RESULTS}/split/val.csv",
        manifest=f"{SET_DIFFUSION}/latents/manifest.tsv",
        slots=f"{SET_DIFFUSION}/latents/slots.npz",
        vecset=f"{RESULTS}/vecset/model.pt",
        grid=f"{SET_DIFFUSION}/voxels/grid.json",
    output:
        model=f"{SET_DIFFUSION}/model/model.pt",
        metrics=f"{SET_DIFFUSION}/model/metrics.json",
    log:
        f"{LOGS}/train_set_diffusion.log",
    benchmark:
        f"{LOGS}/benchmark/train_set_diffusion.tsv"
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
        script=script("train_set_diffusion.py"),
        flags=flags("set_diffusion"),
        out=folder_of_output,
    shell:
        training(
            " --train {input.train:q} --validation {input.validation:q}"
            " --manifest {input.manifest:q} --slots {input.slots:q} --vecset {input.vecset:q}"
            " --grid {input.grid:q} --out {params.out} {params.flags}"
        )


# The hearts that judge samples, where these may be drawn again.
SET_JUDGES = (
    {"voxels": f"{SET_DIFFUSION}/voxels/manifest.tsv", "train": f"{RESULTS}/split/train.csv"}
    if OPTIONS["set_sampling"].redraw
    else {}
)


rule sample_set_diffusion:
    input:
        **SET_JUDGES,
        model=f"{SET_DIFFUSION}/model/model.pt",
    output:
        f"{SET_DIFFUSION}/samples/metrics.json",
    log:
        f"{LOGS}/sample_set_diffusion.log",
    benchmark:
        f"{LOGS}/benchmark/sample_set_diffusion.tsv"
    conda:
        "../envs/apply.yaml"
    threads: 8
    resources:
        gpu=1,
        mem_mb=16000,
        runtime=240,
    params:
        launcher=script("launch.py"),
        script=script("sample_set_diffusion.py"),
        flags=with_files(flags("set_sampling"), SET_JUDGES),
        out=folder_of_output,
    shell:
        one_process(
            f" --model {'{input.model:q}' if SET_JUDGES else '{input:q}'}"
            " --out {params.out} {params.flags}"
        )


use rule evaluate_samples as evaluate_set_samples with:
    input:
        samples=samples_as_label_maps(f"{SET_DIFFUSION}/samples/metrics.json", "set_sampling"),
        voxels=f"{SET_DIFFUSION}/voxels/manifest.tsv",
        grid=f"{SET_DIFFUSION}/voxels/grid.json",
        latents=f"{SET_DIFFUSION}/latents/manifest.tsv",
        train=f"{RESULTS}/split/train.csv",
        test=f"{RESULTS}/split/test.csv",
    output:
        f"{SET_DIFFUSION}/samples/figures.json",
    log:
        f"{LOGS}/evaluate_set_samples.log",
    benchmark:
        f"{LOGS}/benchmark/evaluate_set_samples.tsv"


# Whole trees of thin vessels, which the fields of generated hearts hold in pieces.
SET_VESSELS = f"{SET_DIFFUSION}/vessels"


rule set_vessels:
    input:
        f"{SET_VESSELS}/figures.json",


use rule encode_vessels as encode_set_vessels with:
    input:
        maps=manifests("fused") if COHORT.use_refined else checked_chunks("labels"),
        cases=CASE_LIST,
        voxels=lambda wildcards: if_fit(vessels_known, f"{SET_DIFFUSION}/voxels/manifest.tsv"),
        label_table=LABEL_TABLE,
    output:
        f"{SET_VESSELS}/trees/manifest.tsv",
    log:
        f"{LOGS}/encode_set_vessels.log",
    benchmark:
        f"{LOGS}/benchmark/encode_set_vessels.tsv"


rule draw_set_vessels:
    input:
        model=f"{SET_DIFFUSION}/model/model.pt",
        samples=samples_as_label_maps(f"{SET_DIFFUSION}/samples/metrics.json", "set_sampling"),
        latents=f"{SET_DIFFUSION}/latents/manifest.tsv",
        train=f"{RESULTS}/split/train.csv",
        test=f"{RESULTS}/split/test.csv",
        trees=f"{SET_VESSELS}/trees/manifest.tsv",
    output:
        f"{SET_VESSELS}/hearts/manifest.tsv",
    log:
        f"{LOGS}/draw_set_vessels.log",
    benchmark:
        f"{LOGS}/benchmark/draw_set_vessels.tsv"
    conda:
        "../envs/apply.yaml"
    threads: 8
    resources:
        gpu=1,
        mem_mb=16000,
        runtime=240,
    params:
        launcher=script("launch.py"),
        script=script("draw_set_vessels.py"),
        flags=flags("set_vessels"),
        out=folder_of_output,
    shell:
        one_process(
            " --model {input.model:q} --samples {input.samples:q} --latents {input.latents:q}"
            " --train {input.train:q} --test {input.test:q} --trees {input.trees:q}"
            " --out {params.out} --manifest {output} --processes {threads} {params.flags}"
        )


use rule evaluate_vessels as evaluate_set_vessels with:
    input:
        trees=f"{SET_VESSELS}/trees/manifest.tsv",
        drawn=f"{SET_VESSELS}/hearts/manifest.tsv",
        train=f"{RESULTS}/split/train.csv",
        test=f"{RESULTS}/split/test.csv",
    output:
        f"{SET_VESSELS}/figures.json",
    log:
        f"{LOGS}/evaluate_set_vessels.log",
