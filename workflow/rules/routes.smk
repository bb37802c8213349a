"""Where trainings get their samples: label maps given or fused, CT windows, refined structures."""

VOXELS = f"sparse/{OPTIONS['voxels'].resolution}"
REGIONS = f"windows/{{window}}/{OPTIONS['windows'].resolution}"

# folder of a route's trainings -> folder of its samples
ROUTES = {"vqvae": VOXELS} | {
    f"vqvae_windows/{window}": REGIONS.format(window=window) for window in WINDOWS
}


wildcard_constraints:
    window="[A-Za-z0-9_]+",
    route="vqvae|vqvae_windows/[A-Za-z0-9_]+",


def samples_of_route(wildcards):
    return manifests(ROUTES[wildcards.route])


def truth_of_route(wildcards):
    """Label maps and meshes where there are such; a window's own voxels are its truth."""
    if wildcards.route != "vqvae":
        return {}
    table = [COHORT.labels] if COHORT.labels else []
    return {
        "cases": CASE_LIST,
        "meshes": manifests("meshes"),
        "label_table": table,
    }


def truth_flags(wildcards, input):
    if wildcards.route != "vqvae":
        return ""
    return f"--cases {input.cases} --meshes {folder_of_meshes(wildcards, input)} {labels_flag()}"


def definition(window):
    """``name=level/width`` of one window: the others do not concern its jobs."""
    found = WINDOWS[window]
    return f"{found.name}={found.level:g}/{found.width:g}"


def continuous_weights(wildcards):
    return OPTIONS["vqvae"].pretrained or f"{RESULTS}/{wildcards.route}/stage0/model.pt"


# The refined structure, by default the coronaries, has a folder of its name.
THIN = Path(RESULTS) / OPTIONS["coronary_repair"].structure
# What the geometry stages read: the case table of the given label maps, or of the fused ones.
CASE_LIST = f"{RESULTS}/fused/cases.tsv" if COHORT.use_refined else f"{RESULTS}/cases.tsv"
# For a chunk's stage: cases.tsv tells it of other cases, too, and its own come with the chunk's
# manifest of check_cases. Fused label maps change all together, with the refinement.
CHUNK_CASES = CASE_LIST if COHORT.use_refined else ancient(CASE_LIST)


LDM = f"{RESULTS}/ldm"


wildcard_constraints:
    preset="cardiform|near",
    source="labels|pointclouds",


def fused_chunk(wildcards):
    """What the geometry stages read in place of the given label maps."""
    return f"{RESULTS}/fused/manifest/{wildcards.chunk}.tsv" if COHORT.use_refined else []


def cloud_cases(wildcards):
    """The case table that point clouds are read from; one file needs none."""
    return [] if OPTIONS["pointclouds"].file else [f"{RESULTS}/cases.tsv"]


def ldm_split(source, part):
    """The split of a source: that of the cohort, but for a file with samples of its own."""
    if source == "pointclouds" and OPTIONS["pointclouds"].file:
        return f"{LDM}/pointclouds/split/{part}.csv"
    return f"{RESULTS}/split/{part}.csv"


def ldm_targets(wildcards):
    """What target ldm makes of each source; completion compares with label maps."""
    sources = OPTIONS["ldm"].sources
    made = expand(f"{LDM}/{{source}}/samples/figures.json", source=sources)
    completes = "labels" in sources and OPTIONS["diffusion"].known_share
    return [*made, *([f"{LDM}/labels/completion/metrics.json"] if completes else [])]


def refinement_flags(preset):
    """Options of a preset's training; cardiform repairs what it corrupts."""
    if preset == "near":
        return flags("coronary_near")
    return f"{flags('coronary')} {flags('coronary_repair')}"


def refinement_model(wildcards):
    preset = OPTIONS["coronary_refine"].preset
    return [] if preset == "repair" else f"{THIN}/{preset}/model.pt"
