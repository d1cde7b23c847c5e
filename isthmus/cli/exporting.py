"""What `isthmus export` compares on, and what it says when it is done."""

from isthmus.cli.commands import Export
from isthmus.data.images import FileImage
from isthmus.data.sample import ImageRef
from isthmus.data.sources import textbook
from isthmus.exchange import export
from isthmus.runs import Run

NUM_IMAGES = 6
"""Bundled figures that are compared on unless others are named."""


def export_command(command: Export) -> list[str]:
    """The lines to print after a run was written out."""
    absent = [str(path) for path in command.images if not path.is_file()]
    if absent:
        raise ValueError(f"No image file {absent[0]!r}.")
    images: list[ImageRef] = [FileImage(root=str(path.parent), path=path.name) for path in command.images]
    done = export(Run(command.run), command.to, command.out, images=images or bundled_images(), which=command.which)
    proof = done.certificate
    gap = proof.pixel_gap
    pixels = "" if gap is None else f", off our pixels by {gap.mean:.2f} of 255 on average, {gap.largest:.1f} at most"
    return [
        f"Equal on {len(proof.images)} images x {len(proof.questions)} questions ({', '.join(proof.compared)}): logits "
        f"differ by at most {proof.logit_difference:.1e} of {proof.largest_logit:.1f}. Images: "
        f"{proof.image_backend}{pixels}.",
        *done.notes,
        f"Folder: {done.folder}",
    ]


def bundled_images() -> list[ImageRef]:
    """Figures of the textbooks in the package, of several shapes."""
    found = {image.key: image for sample in textbook.questions("kind", NUM_IMAGES * 2) for image in sample.images}
    return list(found.values())[:NUM_IMAGES]
