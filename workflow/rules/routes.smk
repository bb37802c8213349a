"""What a sparse VQ-VAE is trained on: the label maps, or one CT window. The rest is the same."""

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
        "cases": f"{RESULTS}/cases.tsv",
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
