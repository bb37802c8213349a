# A k-fold in one call: the rules of a split run for each fold, below folds/<n>/, and share all that is
# made of single cases. Models of all folds together: apply.models [results/acme/folds].
IN_FOLDS = f"{RESULTS}/folds/{{family}}/summary.csv"


wildcard_constraints:
    family="vecset|vqvae|vqvae_windows/[A-Za-z0-9_]+",


rule vecset_folds:
    input:
        expand(IN_FOLDS, family="vecset"),


rule vqvae_folds:
    input:
        expand(IN_FOLDS, family="vqvae"),


rule vqvae_windows_folds:
    input:
        expand(IN_FOLDS, family=[f"vqvae_windows/{window}" for window in WINDOWS]),


rule collect_folds:
    input:
        in_folds(f"{OF_SPLIT}{{family}}/reconstructions/metrics.json"),
    output:
        summary=IN_FOLDS,
        cases=f"{RESULTS}/folds/{{family}}/cases.csv",
    log:
        f"{LOGS}/folds/{{family}}/collect_folds.log",
    localrule: True
    conda:
        "../envs/geometry.yaml"
    params:
        script=script("collect_folds.py"),
        rule=lambda wildcards: f"reconstruct_{wildcards.family.partition('_')[0]}",
        out=folder_of_output,
    shell:
        "python {params.script:q} --rule {params.rule} --metrics {input:q} --out {params.out}"
        " 2>&1 | tee {log}"
