# The refined structure, by default the coronaries, has a folder of its name.
THIN = Path(RESULTS) / OPTIONS["coronary_repair"].structure
# Options of each preset's training; cardiform repairs what it corrupts.
REFINEMENT_FLAGS = {
    "cardiform": lambda wildcards: (
        f"{flags('coronary', **tried(wildcards, 'coronary'))} {flags('coronary_repair')}"
    ),
    "near": lambda wildcards: flags("coronary_near", **tried(wildcards, "coronary_near")),
}
REFINING = OPTIONS["coronary_refine"].preset

# The traced structure need not be the refined one.
TREES = f"{OPTIONS['coronary_trace'].structure}/trees"


wildcard_constraints:
    preset="cardiform|near",


# A label table without the structure has nothing to refine: a note says so.
rule coronary:
    input:
        [f"{THIN}/refined/metrics.json"] if HAS_STRUCTURE else [],


rule trees:
    input:
        f"{RESULTS}/{TREES}/branches.csv",


rule repair_coronary:
    input:
        checked=lambda wildcards: if_fit(
            structure_known, f"{RESULTS}/qc/manifest/{wildcards.chunk}.tsv"
        ),
        cases=ancient(f"{RESULTS}/cases.tsv"),
        label_table=LABEL_TABLE,
    output:
        f"{THIN}/repaired/manifest/{{chunk}}.tsv",
    log:
        f"{LOGS}/repair_coronary/{{chunk}}.log",
    benchmark:
        f"{LOGS}/benchmark/repair_coronary/{{chunk}}.tsv"
    conda:
        "../envs/geometry.yaml"
    threads: chunk_threads
    resources:
        mem_mb=lambda wildcards, threads, attempt: 3000 * threads * attempt,
    params:
        script=script("repair_coronary.py"),
        flags=flags("coronary_repair"),
        label_table=labels_flag,
        select=chunk_cases,
        out=folder_of_stage,
    shell:
        "python {params.script:q} --cases {input.cases:q} --select {params.select}"
        " --out {params.out} --manifest {output} --processes {threads}"
        " {params.label_table} {params.flags} 2>&1 | tee {log}"


# As in train_vecset only the final files are outputs: checkpoints must outlive a failure.
rule train_coronary:
    input:
        train=f"{OF_SPLIT}split/train.csv",
        validation=f"{OF_SPLIT}split/val.csv",
        samples=manifests(f"{THIN.name}/repaired"),
        trial=trial_file,
    output:
        model=f"{OF_TRIAL}{THIN.name}/{{preset}}/model.pt",
        metrics=f"{OF_TRIAL}{THIN.name}/{{preset}}/metrics.json",
    log:
        f"{LOGS}/{{fold}}{{trial}}train_coronary/{{preset}}.log",
    benchmark:
        f"{LOGS}/benchmark/{{fold}}{{trial}}train_coronary/{{preset}}.tsv"
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
        script=script("train_coronary.py"),
        flags=lambda wildcards: REFINEMENT_FLAGS[wildcards.preset](wildcards),
        out=folder_and_labels,
    shell:
        training(
            " --preset {wildcards.preset} --train {input.train:q} --validation {input.validation:q}"
            " --manifest {input.samples:q} --out {params.out} {params.flags}"
        )


rule refine_coronary:
    input:
        model=[] if REFINING == "repair" else f"{OF_SPLIT}{THIN.name}/{REFINING}/model.pt",
        checked=manifests("qc"),
        samples=manifests(f"{THIN.name}/repaired"),
        cases=f"{RESULTS}/cases.tsv",
        splits=expand(
            f"{OF_SPLIT}split/{{part}}.csv", part=["train", "val", "test"], allow_missing=True
        ),
        label_table=LABEL_TABLE,
    output:
        f"{OF_SPLIT}{THIN.name}/refined/metrics.json",
    log:
        f"{LOGS}/{{fold}}refine_coronary.log",
    benchmark:
        f"{LOGS}/benchmark/{{fold}}refine_coronary.tsv"
    conda:
        "../envs/torch.yaml"
    threads: 8
    resources:
        gpu=1,
        mem_mb=16000,
        runtime=480,
    params:
        launcher=script("launch.py"),
        script=script("refine_coronary.py"),
        flags=flags("coronary_refine"),
        repair=flags("coronary_repair"),
        model=lambda wildcards, input: (
            (f"--model {input.model}" if input.model else "")
            # a fold is about the cases that it tests
            + (" --held-out" if wildcards.fold else "")
        ),
        label_table=labels_flag,
        out=folder_of_output,
    shell:
        one_process(
            " {params.model} --cases {input.cases:q} --manifest {input.samples:q}"
            " --train {input.splits[0]:q} --validation {input.splits[1]:q} --test {input.splits[2]:q}"
            " --out {params.out} {params.label_table} {params.flags} {params.repair}"
        )


rule trace_coronary:
    input:
        fused=fused_chunk,
        checked=lambda wildcards: if_fit(
            traced_known, f"{RESULTS}/qc/manifest/{wildcards.chunk}.tsv"
        ),
        cases=CHUNK_CASES,
        label_table=LABEL_TABLE,
    output:
        f"{RESULTS}/{TREES}/manifest/{{chunk}}.tsv",
    log:
        f"{LOGS}/trace_coronary/{{chunk}}.log",
    benchmark:
        f"{LOGS}/benchmark/trace_coronary/{{chunk}}.tsv"
    conda:
        "../envs/geometry.yaml"
    threads: chunk_threads
    resources:
        mem_mb=lambda wildcards, threads, attempt: 3000 * threads * attempt,
    params:
        script=script("trace_coronary.py"),
        flags=flags("coronary_trace"),
        label_table=labels_flag,
        select=chunk_cases,
        out=folder_of_stage,
    shell:
        "python {params.script:q} --cases {input.cases:q} --select {params.select}"
        " --out {params.out} --manifest {output} --processes {threads}"
        " {params.label_table} {params.flags} 2>&1 | tee {log}"


rule collect_trees:
    input:
        manifests=manifests(TREES),
        cases=CASE_LIST,
    output:
        branches=f"{RESULTS}/{TREES}/branches.csv",
        summary=f"{RESULTS}/{TREES}/summary.json",
    log:
        f"{LOGS}/collect_trees.log",
    localrule: True
    conda:
        "../envs/geometry.yaml"
    params:
        script=script("collect_trees.py"),
        out=folder_of_output,
    shell:
        "python {params.script:q} --cases {input.cases:q} --manifest {input.manifests:q}"
        " --out {params.out} 2>&1 | tee {log}"
