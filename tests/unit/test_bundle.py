"""Bundles: what comes out of one is what went in, or it is refused, a line for each fault."""

from __future__ import annotations

import json
import os
import pickle
import stat
import zipfile

import numpy as np
import pytest
import torch

from cardiform.artefact import bundle
from cardiform.artefact.bundle import (
    CARD,
    LIST,
    MODEL,
    check_bundle,
    copy_bundle,
    finish_bundle,
    is_bundle,
    pack,
    unpack,
)
from cardiform.artefact.layout import PLACES, model_files
from cardiform.artefact.model import Model, save_portable
from cardiform.errors import InputError
from cardiform.labels import LabelTable

TABLE = LabelTable()
ABOUT = {
    "name": "acme",
    "models": {"vecset": {"kind": "toy", "cases": 1}},
    "labels": TABLE.as_dicts(),
    "frame": {"world": "RAS mm"},
    "example": [],
    "versions": {"cardiform": "0"},
}


@pytest.fixture
def made(tmp_path):
    """The folder of a bundle with one model, an npz and a card."""
    folder = tmp_path / "made"
    model = Model(
        kind="toy", weights={"a": torch.ones(3)}, options={}, labels=TABLE.as_dicts(), figures={},
        training_cases=[],
    )  # fmt: skip
    save_portable(folder / "vecset" / MODEL, model)
    (folder / "example").mkdir()
    np.savez(folder / "example" / "a.npz", x=np.ones(3))
    (folder / CARD).write_text("# acme\n")
    finish_bundle(folder, ABOUT)
    return folder


def lines_of(call, *arguments) -> list[str]:
    with pytest.raises(InputError) as caught:
        call(*arguments)
    assert all("\n" not in line for line in caught.value.problems)
    return caught.value.problems


def relisted(folder, **changes):
    """Change the list of a bundle: None takes a key away."""
    content = json.loads((folder / LIST).read_text()) | changes
    content = {k: v for k, v in content.items() if v is not None}
    (folder / LIST).write_text(json.dumps(content))


def test_a_bundle_is_sound_packed_and_unpacked(made, tmp_path):
    about = check_bundle(made)
    assert about["name"] == "acme" and set(about["files"]) == {
        f"vecset/{MODEL}", "example/a.npz"
    }  # fmt: skip
    pack(made, tmp_path / "a.zip")
    pack(made, tmp_path / "b.zip")
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()
    for name, write in (("c", lambda p: unpack(tmp_path / "a.zip", p)),
                        ("d", lambda p: copy_bundle(made, p))):  # fmt: skip
        (tmp_path / name).mkdir()
        write(tmp_path / name)
        for path in made.rglob("*"):
            other = tmp_path / name / path.relative_to(made)
            assert path.is_dir() or path.read_bytes() == other.read_bytes()
        assert check_bundle(tmp_path / name) == about
    assert is_bundle(made) and is_bundle(tmp_path / "a.zip") and not is_bundle(tmp_path)


def test_the_card_may_be_filled_in_and_hubs_may_add_hidden_files(made):
    (made / CARD).write_text("# acme\n\nlicence: ours\n")
    (made / ".gitattributes").write_text("x")
    check_bundle(made)


def test_every_fault_of_a_bundle_is_named_at_once(made):
    model = made / "vecset" / MODEL
    raw = bytearray(model.read_bytes())
    raw[-1] ^= 1
    model.write_bytes(raw)
    (made / "example" / "a.npz").unlink()
    (made / "vecset" / "model.pt").write_bytes(b"x")
    lines = lines_of(check_bundle, made)
    assert len(lines) == 3
    for line, words in zip(
        sorted(lines),
        ("a.npz: is missing", "model.pt: is on no list", f"{MODEL}: was changed"),
    ):
        assert words in line


def test_another_size(made):
    with (made / "vecset" / MODEL).open("ab") as stream:
        stream.write(b"0")
    (line,) = lines_of(check_bundle, made)
    assert "has another size than listed; get the bundle again" in line


class Trap:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


def test_nothing_that_could_run_code_is_taken(made, tmp_path):
    (made / "vecset" / MODEL).write_bytes(pickle.dumps(Trap(tmp_path / "sprung")))
    array = np.array([Trap(tmp_path / "sprung")], object)
    np.savez(made / "example" / "a.npz", x=array, allow_pickle=True)
    finish_bundle(made, ABOUT)  # with right checksums
    lines = lines_of(check_bundle, made)
    assert len(lines) == 2 and any("is no safetensors: it could run code" in x for x in lines)
    (made / "vecset" / "model.pt").write_bytes(pickle.dumps(Trap(tmp_path / "sprung")))
    finish_bundle(made, ABOUT)
    (line,) = lines_of(check_bundle, made)
    assert "model.pt: could run code: it may be pickled" in line
    assert not (tmp_path / "sprung").exists()


def test_other_kinds_of_files(made):
    (made / "run.sh").write_text("rm -rf /")
    finish_bundle(made, ABOUT)
    (line,) = lines_of(check_bundle, made)
    assert "run.sh: is none of the files that a bundle has" in line


def test_links(made, tmp_path):
    path = made / "example" / "a.npz"
    path.rename(tmp_path / "elsewhere.npz")
    path.symlink_to(tmp_path / "elsewhere.npz")
    (line,) = lines_of(check_bundle, made)
    assert "a.npz: is a link" in line
    path.unlink()
    (made / "example").rmdir()
    (tmp_path / "outside").mkdir()
    (tmp_path / "elsewhere.npz").rename(tmp_path / "outside" / "a.npz")
    (made / "example").symlink_to(tmp_path / "outside")
    assert any("is a link" in line for line in lines_of(check_bundle, made))


ODD_NAMES = ["../a.npz", "/etc/a.npz", "x/../../a.npz", "a\\b.npz", "C:a.npz", "", "a\nb.npz"]


@pytest.mark.parametrize("name", ODD_NAMES)
def test_names_that_lead_out(made, name):
    files = json.loads((made / LIST).read_text())["files"]
    relisted(made, files=files | {name: {"bytes": 1, "sha256": ""}})
    lines = lines_of(check_bundle, made)
    assert len(lines) == 1 and "leads out of it" in lines[0]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"format_version": 2}, "has bundle format 2, this version reads 1: made by a newer"),
        ({"format_version": None}, "is no bundle file (no format_version)"),
        ({"files": None}, "(no files)"),
        ({"files": []}, "is no "),
        ({"files": {"a.npz": {"bytes": -1, "sha256": ""}}}, "is no list of a bundle (a.npz)"),
        ({"files": {"a.npz": 3}}, "is no bundle file"),
        ({"models": []}, "is no "),
        ({"models": {"other": {"kind": "toy", "cases": 1}}}, "lists no file of the model other"),
    ],
    ids=str,
)
def test_lists_that_do_not_fit(made, changes, words):
    relisted(made, **changes)
    lines = lines_of(check_bundle, made)
    assert any(words in line for line in lines), lines


@pytest.mark.parametrize("text", ["", "[]", "3", "{", "[" * 100_000, "null"], ids=len)
def test_lists_that_are_none(made, text):
    (made / LIST).write_text(text)
    assert len(lines_of(check_bundle, made)) == 1


def test_what_is_no_bundle(tmp_path):
    assert "is no bundle (no bundle.json)" in lines_of(check_bundle, tmp_path)[0]
    (tmp_path / "a.zip").write_text("text")
    assert "is no zip, or is damaged" in lines_of(unpack, tmp_path / "a.zip", tmp_path)[0]
    assert "does not exist" in lines_of(unpack, tmp_path / "b.zip", tmp_path)[0]
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("x", "y")
    assert "is no bundle (no bundle.json)" in lines_of(unpack, tmp_path / "a.zip", tmp_path)[0]


@pytest.fixture
def zipped(made, tmp_path):
    pack(made, tmp_path / "a.zip")
    (tmp_path / "out").mkdir()
    return tmp_path / "a.zip"


def entry(name, kind=stat.S_IFREG):
    info = zipfile.ZipInfo(name)
    info.external_attr = (kind | 0o644) << 16
    return info


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize(
    ("info", "words"),
    [
        (entry("../evil.npz"), "../evil.npz leads out of it"),
        (entry("/evil.npz"), "leads out of it"),
        (entry("evil.npz", stat.S_IFLNK), "evil.npz is a link"),
        (entry("evil.npz", stat.S_IFIFO), "evil.npz is a link"),
        (entry("more.npz"), "more.npz is on no list"),
        (entry("vecset/MODEL.safetensors"), "is there twice"),
        (entry(LIST), "bundle.json is there twice"),
    ],
    ids=lambda x: str(x)[:30],
)
def test_entries_of_a_zip_that_are_refused(zipped, info, words):
    with zipfile.ZipFile(zipped, "a") as archive:
        archive.writestr(info, "x")
    out = zipped.parent / "out"
    assert any(words in line for line in lines_of(unpack, zipped, out))
    assert not (zipped.parent / "evil.npz").exists()
    assert {p.name for p in out.iterdir()} <= {LIST}


def rezipped(zipped, change):
    """Write a zip again with its entries (name -> bytes) changed."""
    with zipfile.ZipFile(zipped) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(zipped, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in change(entries).items():
            archive.writestr(name, content)


def test_oversized_and_missing_members(zipped, monkeypatch):
    out = zipped.parent / "out"
    rezipped(zipped, lambda e: e | {"example/a.npz": bytes(50_000_000)})
    (line,) = lines_of(unpack, zipped, out)
    assert "example/a.npz has 50,000,000 bytes" in line and not (out / "example").exists()
    rezipped(zipped, lambda e: {k: v for k, v in e.items() if k != "example/a.npz"})
    assert "example/a.npz is missing" in lines_of(unpack, zipped, out)[0]
    monkeypatch.setattr(bundle, "LONGEST_TEXT", 10_000)
    rezipped(zipped, lambda e: e | {CARD: b"x" * 20_000})
    assert any("README.md is longer than" in line for line in lines_of(unpack, zipped, out))
    rezipped(zipped, lambda e: e | {LIST: b" " * 20_000})
    assert "bundle.json is longer than" in lines_of(unpack, zipped, out)[0]


def test_a_zip_that_holds_more_than_the_disk(zipped, monkeypatch):
    usage = type("Usage", (), {"free": 100})
    monkeypatch.setattr(bundle.shutil, "disk_usage", lambda folder: usage)
    assert "the disk has 100" in lines_of(unpack, zipped, zipped.parent / "out")[0]


@pytest.mark.parametrize("place", [0.1, 0.4, 0.6, 0.9, 0.999])
def test_a_zip_with_a_changed_bit(zipped, place):
    """Its own checksums notice it, or those of the list do."""
    raw = bytearray(zipped.read_bytes())
    raw[int(len(raw) * place)] ^= 1
    zipped.write_bytes(raw)

    def read():
        unpack(zipped, zipped.parent / "out")
        check_bundle(zipped.parent / "out")

    try:
        before = os.listdir(zipped.parent)
        read()
    except InputError as error:
        assert all(line for line in error.problems)
    else:  # a date, say, which nothing depends on
        assert os.listdir(zipped.parent) == before


def test_where_a_results_folder_has_its_models(tmp_path):
    for place in (
        "vecset", "vqvae/stage0", "vqvae/stage1", "vqvae_windows/bone/stage1",
        "vqvae_windows/bone/stage2", "vqvae_windows/lung/stage1", "coronary/near", "veins/near",
        "ldm/labels/autoencoder", "ldm/pointclouds/diffusion", "folds/0/vecset", "folds/1/vecset",
    ):  # fmt: skip
        (tmp_path / place).mkdir(parents=True)
        suffix = ".safetensors" if place == "veins/near" else ".pt"
        (tmp_path / place / f"model{suffix}").touch()
    (tmp_path / "coronary" / "cardiform").mkdir()
    found = {
        family: [str(p.parent.relative_to(tmp_path)) for p in model_files(tmp_path, family)]
        for family in PLACES
    }
    assert found == {
        "vecset": ["vecset", "folds/0/vecset", "folds/1/vecset"],
        "vqvae": ["vqvae/stage1", "vqvae_windows/bone/stage2", "vqvae_windows/lung/stage1"],
        "coronary": ["coronary/near", "veins/near"],
        "ldm": ["ldm/labels/autoencoder", "ldm/pointclouds/diffusion"],
    }
