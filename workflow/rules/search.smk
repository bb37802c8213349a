# By its name only, and for the training that the config names.
rule search:
    input:
        lambda wildcards: if_fit(search_named, f"{RESULTS}/search/{SEARCH.training}/best.yaml"),


rule propose_trials:
    input:
        unpack(of_earlier_rounds),
        fit=lambda wildcards: if_fit(lambda: search_possible(wildcards), []),
    output:
        f"{OF_SEARCH}/round_{{round}}/trials.json",
    log:
        f"{LOGS}/{{fold}}search/{{training}}/propose_trials_{{round}}.log",
    localrule: True
    conda:
        "../envs/search.yaml"
    params:
        script=script("propose_trials.py"),
        flags=flags("search", **UNPROPOSED),
        given=given_of,
        told=lambda wildcards, input: (
            f"--tables {shlex.join(input.trials)} --metrics {shlex.join(input.metrics)}"
            if int(wildcards.round)
            else ""
        ),
    shell:
        "python {params.script:q} --round {wildcards.round} --given {params.given} {params.told}"
        " --out {output} {params.flags} 2>&1 | tee {log}"


rule rank_trials:
    input:
        trials=trials_of_rung,
        metrics=lambda wildcards: metrics_of_rung(
            wildcards, int(wildcards.rung), range(places(SEARCH)[int(wildcards.rung)])
        ),
    output:
        f"{OF_SEARCH}/rung_{{rung}}/ranking.json",
    log:
        f"{LOGS}/{{fold}}search/{{training}}/rank_trials_{{rung}}.log",
    localrule: True
    conda:
        "../envs/geometry.yaml"
    params:
        script=script("rank_trials.py"),
        flags=flags("search"),
    shell:
        "python {params.script:q} --tables {input.trials:q} --metrics {input.metrics:q}"
        " --out {output} {params.flags} 2>&1 | tee {log}"


rule collect_search:
    input:
        fit=lambda wildcards: if_fit(lambda: search_possible(wildcards), []),
        rankings=lambda wildcards: [
            f"{OF_SEARCH}/rung_{rung}/ranking.json".format(**dict(wildcards))
            for rung in range(len(SEARCH.rungs))
        ],
    output:
        best=f"{OF_SEARCH}/best.yaml",
        table=f"{OF_SEARCH}/trials.tsv",
        picture=f"{OF_SEARCH}/search.png",
        study=f"{OF_SEARCH}/study.log",
    log:
        f"{LOGS}/{{fold}}search/{{training}}/collect_search.log",
    localrule: True
    conda:
        "../envs/search.yaml"
    params:
        script=script("collect_search.py"),
        flags=flags("search"),
        out=folder_of_output,
    shell:
        "python {params.script:q} --rankings {input.rankings:q} --out {params.out}"
        " {params.flags} 2>&1 | tee {log}"
