# A k-fold in one call: the rules of a split run for each fold, below folds/<n>/, and share all that is
# made of single cases. Models of all folds together: apply.models [results/acme/folds].
IN_FOLDS = f"{RESULTS}/folds/{{family}}/summary.csv"


# Where the figures of held-out cases are, and what makes them; of the others: reconstructions.
HELD_OUT = {
    "ldm": ("ldm/labels/completion", "complete_labels"),
    THIN.name: (f"{THIN.name}/refined", "refine_coronary"),
}


wildcard_constraints:
    family=f"vecset|vqvae|vqvae_windows/[A-Za-z0-9_]+|ldm|{THIN.name}",


rule vecset_folds:
    input:
        expand(IN_FOLDS, family="vecset"),


rule vqvae_folds:
    input:
        expand(IN_FOLDS, family="vqvae"),


rule vqvae_windows_folds:
    input:
        expand(IN_FOLDS, family=WINDOW_ROUTES),


rule coronary_folds:
    input:
        lambda wildcards: if_fit(structure_known, expand(IN_FOLDS, family=THIN.name)),


rule ldm_folds:
    input:
        expand(IN_FOLDS, family="ldm"),


rule collect_folds:
    input:
        metrics=figures_in_folds,
        # the refinement keeps the figures of a case in a file of its own
        test=lambda wildcards: (
            in_folds(f"{OF_SPLIT}split/test.csv")(wildcards)
            if wildcards.family == THIN.name
            else []
        ),
    output:
        summary=IN_FOLDS,
        cases=f"{RESULTS}/folds/{{family}}/cases.csv",
        picture=f"{RESULTS}/folds/{{family}}/folds.png",
    log:
        f"{LOGS}/folds/{{family}}/collect_folds.log",
    localrule: True
    conda:
        "../envs/geometry.yaml"
    params:
        script=script("collect_folds.py"),
        rule=lambda wildcards: held_out(wildcards)[1],
        test=lambda wildcards, input: f"--test {shlex.join(input.test)}" if input.test else "",
        out=folder_of_output,
    shell:
        "python {params.script:q} --rule {params.rule} --metrics {input.metrics:q} {params.test}"
        " --out {params.out} 2>&1 | tee {log}"
