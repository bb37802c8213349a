"""NIfTI files whose headers say what no good writer would."""

from __future__ import annotations

import gzip
from pathlib import Path

import nibabel as nib
import numpy as np

AFFINE = np.array([[-1.5, 0, 0, 40], [0, 0, 2, -30], [0, 1.5, 0, 20], [0, 0, 0, 1.0]])


def heart(dtype=np.uint8) -> np.ndarray:
    """(6, 7, 8) labels 0, 1 and 3."""
    data = np.zeros((6, 7, 8), dtype)
    data[1:4, 2:5, 1:6] = 3
    data[2:4, 3:5, 2:4] = 1
    return data


def write_nifti(
    path: Path, data=None, affine=AFFINE, *, sform=1, qform=1, kind=nib.Nifti1Image, **fields
) -> Path:
    """Write an image with codes, then set header fields, by name, to anything.

    path : .nii, .nii.gz, .hdr or .img (either of a pair, with kind Nifti1Pair).
    """
    path.parent.mkdir(exist_ok=True)
    image = kind(
        heart() if data is None else data, affine, dtype=None if data is None else data.dtype
    )
    image.set_sform(affine, sform)
    image.set_qform(affine, qform)
    nib.save(image, path)
    if fields:
        change_header(path, type(image.header).template_dtype, **fields)
    return path


def change_header(path: Path, dtype: np.dtype, **fields) -> None:
    packed = path.name.endswith(".gz")
    content = bytearray(gzip.decompress(path.read_bytes()) if packed else path.read_bytes())
    header = np.frombuffer(content, dtype, count=1)[0]
    for name, value in fields.items():
        header[name] = value
    path.write_bytes(gzip.compress(bytes(content)) if packed else bytes(content))


def scan(labels: np.ndarray) -> np.ndarray:
    """int16 Hounsfield units: blood where there are labels, air, fat and muscle around."""
    rng = np.random.default_rng(0)
    around = np.array([-1000, -100, 50])[np.indices(labels.shape)[0] * 3 // len(labels)]
    values = np.where(labels > 0, 300, around)
    return (values + rng.normal(0, 20, labels.shape)).astype(np.int16)
