# A search runs the rules of its training once for each trial, below search/<training>/, with the
# wildcard trial: "search/vecset/rung_0/place_03/" say, and empty otherwise. The number of places in
# each rung is known from the start, so a plan has every job; which trial takes a place of a later
# rung is in the ranking of the rung before it.
from cardiform.options.search import SEARCHED, SearchOptions
from cardiform.search.rungs import check_search, places, round_of, trial_at, trials_of
from cardiform.search.space import check_space, parse_space, text_of, values_of

OF_TRIAL = f"{OF_SPLIT}{{trial}}"
SEARCH = OPTIONS["search"]
OF_SEARCH = f"{OF_SPLIT}search/{{training}}"
STRUCTURE = OPTIONS["coronary_repair"].structure
# Where a training lies, below the folder of its trial.
SEARCHED_IN = {
    "vecset": "vecset",
    "vqvae_pretrain": "vqvae/stage0",
    "vqvae_codebook": "vqvae/stage1",
    "vqvae_joint": "vqvae/stage2",
    "coronary": f"{STRUCTURE}/cardiform",
    "coronary_near": f"{STRUCTURE}/near",
    "autoencoder": f"ldm/{OPTIONS['ldm'].sources[0]}/autoencoder",
    "diffusion": f"ldm/{OPTIONS['ldm'].sources[0]}/diffusion",
    "vessels": "ldm/labels/vessels/model",
}
# What the settings of trials do not depend on, unless a round learns from the one before.
UNPROPOSED = {
    key: getattr(SearchOptions(), key)
    for key in ("rungs", "reduction", "figure", "goal")
    if SEARCH.rounds == 1
}


wildcard_constraints:
    trial="(search/[a-z_]+/rung_[0-9]+/place_[0-9]+/)?",
    training="|".join(SEARCHED),
    rung="[0-9]+",
    round="[0-9]+",


def place_of(wildcards):
    """Training, rung and place of a trial's job."""
    _, sought, rung, place, _ = wildcards.trial.split("/")
    return sought, int(rung.removeprefix("rung_")), int(place.removeprefix("place_"))


def folder_of_place(fold, sought, rung, place):
    folder = f"{RESULTS}/{fold}search/{sought}/rung_{rung}/place_{place:02d}"
    return f"{folder}/{SEARCHED_IN[sought]}"


def trial_table(wildcards):
    """The file that says which trial has the place of a job, and at which place of the file."""
    sought, rung, place = place_of(wildcards)
    above = f"{RESULTS}/{wildcards.get('fold', '')}search/{sought}"
    if rung:
        return f"{above}/rung_{rung - 1}/ranking.json", place
    number = round_of(SEARCH, place)
    return f"{above}/round_{number}/trials.json", place - trials_of(SEARCH, number)[0]


def trial_file(wildcards):
    """An input of every training that can be searched; none where it is no trial."""
    return trial_table(wildcards)[0] if wildcards.trial else []


def tried(wildcards, section):
    """What a trial changes in the options of a section; nothing where it is no trial."""
    if not wildcards.trial:
        return {}
    sought, rung, _ = place_of(wildcards)
    trial = trial_at(*trial_table(wildcards))
    changes = {
        name.split(".")[1]: tuple(value) if isinstance(value, list) else value
        for name, value in trial["options"].items()
        if name.split(".")[0] == section
    }
    if section != sought:
        return changes
    changes |= {"steps": SEARCH.rungs[-1], "until": SEARCH.rungs[rung]}
    if rung and not trial.get("diverged"):
        before = folder_of_place(wildcards.get("fold", ""), sought, rung - 1, trial.get("place", 0))
        changes["resume_from"] = f"{before}/checkpoints/last.pt"
    return changes


def search_named():
    if not SEARCH.training:
        known = ", ".join(SEARCHED)
        raise InputError(f"config: search.training is empty; name a training, one of {known}")


def validation_known(wildcards):
    options = split_of(wildcards)
    if not (options.folds or options.validation):
        raise InputError("config: split.validation is 0; a search ranks by validation cases")
    # the samples of one file are no cases of the cohort
    if not (ONE_FILE and "pointclouds" in SEARCHED_IN[wildcards.training]):
        splits.split_cases(CASES.values(), options)


def search_possible(wildcards):
    """All that concerns searches alone."""
    search_named()
    if wildcards.training != SEARCH.training:
        raise InputError(
            f"config: search.training is {SEARCH.training}; set it to {wildcards.training}"
        )
    _, space, *_ = together(
        lambda: check_search(SEARCH),
        lambda: parse_space(SEARCH),
        lambda: validation_known(wildcards),
        stage_0_alone,
        levels_in_the_first_rung,
    )
    check_space(space, SEARCH)
    together(*(lambda d=d, v=v: setting_fits(d, v) for d in space for v in d.extremes))


def stage_0_alone():
    if SEARCH.training == "vqvae_pretrain" and OPTIONS["vqvae_pretrain"].coarser:
        raise InputError(
            "config: vqvae_pretrain.coarser is set, and trials of vqvae_pretrain start from random "
            "weights; empty it for the search"
        )


def levels_in_the_first_rung():
    """Trials take fewer steps than the training, and the first rung ranks them already."""
    if SEARCH.training == "vqvae_joint":
        joint = replace(OPTIONS["vqvae_joint"], steps=SEARCH.rungs[0])
        if list(unfreezing_faults(joint)):
            raise InputError(
                f"config: vqvae_joint.unfreeze_steps is {joint.unfreeze_steps}: trials would be "
                f"ranked after step {joint.steps:,}, before every level is trained; set it to 0 "
                "for the search, or raise search.rungs"
            )


def setting_fits(dimension, value):
    """Whether the other options of the config go with a value."""
    section = dimension.section
    changed = {**OPTIONS, section: replace(OPTIONS[section], **{dimension.key: value})}
    try:
        together(
            lambda: check_sections(changed),
            lambda: check_ldm(*(changed[name] for name in LDM_SECTIONS)),
            lambda: check_vessels(changed["vessels"]),
            lambda: check_batch(section, changed[section]) if section == "vessels" else None,
        )
    except InputError as error:
        where = f"config: search.space: {dimension.name} {text_of(value)}"
        raise InputError(f"{where}: {line}" for line in error.problems) from None


def given_of(wildcards):
    """The values of the config, as the first trial has them."""
    values = values_of(parse_space(SEARCH), OPTIONS)
    return shlex.join(f"{name}={text_of(value)}" for name, value in values.items())


def metrics_of_rung(wildcards, rung, numbers):
    return [
        f"{folder_of_place(wildcards.fold, wildcards.training, rung, place)}/metrics.json"
        for place in numbers
    ]


def of_earlier_rounds(wildcards):
    """Trials and figures from which a round learns."""
    if not (number := int(wildcards.round)):
        return {}
    rounds = range(number)
    numbers = [trial for n in rounds for trial in trials_of(SEARCH, n)]
    return {
        "trials": [f"{OF_SEARCH}/round_{n}/trials.json".format(**dict(wildcards)) for n in rounds],
        "metrics": metrics_of_rung(wildcards, 0, numbers),
    }


def trials_of_rung(wildcards):
    rung = int(wildcards.rung)
    folder = OF_SEARCH.format(**dict(wildcards))
    if rung:
        return f"{folder}/rung_{rung - 1}/ranking.json"
    return [f"{folder}/round_{number}/trials.json" for number in range(SEARCH.rounds)]
