# What a training on a route reads, stage 0 by way of coarser resolutions too: one job a level. The
# wildcard coarse is "_128", say, and empty at its own resolution.
COARSER = [f"_{resolution}" for resolution in OPTIONS["vqvae_pretrain"].coarser]


wildcard_constraints:
    coarse=f"({'|'.join(COARSER)})?",


def samples_of_route(wildcards):
    return [path for folder in ROUTES[wildcards.route] for path in manifests(folder)]


def windows_of_route(wildcards):
    """The windows that a training is on together: it is given the window of each sample."""
    if wildcards.route != TOGETHER or not OPTIONS["windows"].together:
        return ""
    linked = " --linked" if OPTIONS["windows"].linked else ""
    return f" --windows {shlex.join(map(str, WINDOWS.values()))}{linked}"


def samples_of_level(wildcards):
    coarse = wildcards.coarse.removeprefix("_")
    if not coarse:
        return samples_of_route(wildcards)
    folders = [Path(folder).parent for folder in ROUTES[wildcards.route]]
    return [path for folder in folders for path in manifests(f"{folder}/{coarse}")]


def model_before(wildcards):
    """The model of the next coarser level of stage 0, from which this one starts; empty: none."""
    levels = [*COARSER, ""]
    number = levels.index(wildcards.coarse)
    folder = f"{RESULTS}/{wildcards.fold}{wildcards.route}"
    return f"{folder}/stage0{levels[number - 1]}/model.pt" if number else ""


def known_before(wildcards):
    """The same as an input, where the resolutions fit the route."""
    section = "voxels" if wildcards.route == "vqvae" else "windows"
    own = OPTIONS[section].resolution
    fits = lambda: check_coarser(OPTIONS["vqvae_pretrain"], section, own)
    return if_fit(fits, model_before(wildcards)) if model_before(wildcards) else []


def of_level(wildcards):
    """What a level of stage 0 changes in its options: each is a training like any other."""
    options = OPTIONS["vqvae_pretrain"]
    steps = {"steps": options.coarser_steps or options.steps, "until": 0, "resume_from": ""}
    without = {"coarser": (), "coarser_steps": 0, "coarser_voxels": 0}
    return without | (steps if wildcards.coarse else {})


def voxels_of_level(wildcards):
    voxels = OPTIONS["vqvae_pretrain"].coarser_voxels if wildcards.coarse else 0
    return {"max_voxels": voxels} if voxels else {}


def start_of(wildcards):
    weights = model_before(wildcards)
    return f" --weights {shlex.quote(weights)}" if weights else ""
