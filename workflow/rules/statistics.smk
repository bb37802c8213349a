# How the hearts of the cohort vary. One script registers every heart and makes the model: the hearts that
# are finished lie in registered/, which is no output, so that they outlive a failure.
rule statistics:
    input:
        f"{RESULTS}/shape_statistics/model.npz",


rule shape_statistics:
    input:
        meshes=manifests("meshes"),
        cases=CASE_LIST,
        train=f"{RESULTS}/split/train.csv",
        validation=f"{RESULTS}/split/val.csv",
        test=f"{RESULTS}/split/test.csv",
        table=[CASE_TABLE] if OPTIONS["shape_statistics"].columns else [],
        label_table=LABEL_TABLE,
    output:
        model=f"{RESULTS}/shape_statistics/model.npz",
        template=f"{RESULTS}/shape_statistics/template.npz",
        scores=f"{RESULTS}/shape_statistics/scores.csv",
        figures=f"{RESULTS}/shape_statistics/statistics.json",
    log:
        f"{LOGS}/shape_statistics.log",
    benchmark:
        f"{LOGS}/benchmark/shape_statistics.tsv"
    conda:
        "../envs/geometry.yaml"
    threads: 4
    resources:
        mem_mb=lambda wildcards, attempt: 8000 * attempt,
        runtime=240,
    params:
        script=script("shape_statistics.py"),
        flags=flags("shape_statistics"),
        label_table=labels_flag,
        table=(f"--table {shlex.quote(CASE_TABLE)}" if OPTIONS["shape_statistics"].columns else ""),
        meshes=folder_of_meshes,
        out=folder_of_output,
    shell:
        "python {params.script:q} --cases {input.cases:q} --meshes {params.meshes}"
        " --train {input.train:q} --validation {input.validation:q} --test {input.test:q}"
        " {params.table} --out {params.out} --processes {threads} {params.label_table}"
        " {params.flags} 2>&1 | tee {log}"


# The same of a VecSet's latents. By its name only: it needs a VecSet whose latents have places.
rule latent_statistics:
    input:
        vecset=f"{RESULTS}/vecset/model.pt",
        latents=f"{RESULTS}/set_diffusion/latents/manifest.tsv",
        slots=f"{RESULTS}/set_diffusion/latents/slots.npz",
        train=f"{RESULTS}/split/train.csv",
        validation=f"{RESULTS}/split/val.csv",
        test=f"{RESULTS}/split/test.csv",
    output:
        model=f"{RESULTS}/latent_statistics/model.npz",
        scores=f"{RESULTS}/latent_statistics/scores.csv",
        figures=f"{RESULTS}/latent_statistics/statistics.json",
    log:
        f"{LOGS}/latent_statistics.log",
    benchmark:
        f"{LOGS}/benchmark/latent_statistics.tsv"
    conda:
        "../envs/apply.yaml"
    threads: 8
    resources:
        gpu=1,
        mem_mb=16000,
        runtime=240,
    params:
        launcher=script("launch.py"),
        script=script("latent_statistics.py"),
        flags=shared_flags(LatentStatisticsOptions, "shape_statistics", "set_latents"),
        out=folder_of_output,
    shell:
        one_process(
            " --vecset {input.vecset:q} --latents {input.latents:q} --slots {input.slots:q}"
            " --train {input.train:q} --validation {input.validation:q} --test {input.test:q}"
            " --out {params.out} {params.flags}"
        )
