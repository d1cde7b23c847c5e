"""Images to be captioned, by reference: a folder, JSON lines with texts that compete, or pictures that are rendered."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from isthmus.data.images import FileImage
from isthmus.data.sample import ImageRef
from isthmus.data.sources.base import Dataset
from isthmus.data.sources.json_lines import JsonLines, text_of

ENDINGS = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff")


@dataclass(frozen=True, kw_only=True)
class Pictured:
    """An image, its path below the root of the whole set, and the texts that came with it."""

    id: str
    path: str
    image: ImageRef
    texts: tuple[str, ...] = ()


def pictures_in(folder: Path) -> list[Pictured]:
    """Every image file below a folder, by path. Raises ValueError when there is none."""
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in ENDINGS and path.is_file())
    if not found:
        raise ValueError(f"{folder} holds no image files ({', '.join(ENDINGS)}).")
    names = [path.relative_to(folder).as_posix() for path in found]
    return [Pictured(id=name, path=name, image=FileImage(root=str(folder), path=name)) for name in names]


def pictures_of(lines: Path, root: Path) -> list[Pictured]:
    """The images of JSON lines `{"image": ..., "text": ...}`, each once; several texts of one image all compete.

    Raises:
        ValueError: no such file, or a line without an image, named.
    """
    texts: dict[str, list[str]] = {}
    read = JsonLines(lines)
    for index in range(len(read)):
        row, where = read[index], read.where(index)
        mine = texts.setdefault(text_of(row, "image", where), [])
        if "text" in row:
            mine.append(text_of(row, "text", where))
    if not texts:
        raise ValueError(f"{lines} holds no lines, so there is nothing to caption.")
    return [
        Pictured(id=path, path=path, image=FileImage(root=str(root), path=path), texts=tuple(dict.fromkeys(some)))
        for path, some in texts.items()
    ]


def rendered(dataset: Dataset, indices: Sequence[int], folder: Path) -> list[Pictured]:
    """The images of a source that are no plain files (scenes, members of archives), written as PNG below a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    found: dict[str, Pictured] = {}
    for index in indices:
        for image in dataset[index].images:
            name = f"{image.key.encode().hex()[:16]}-{index}.png" if not image.key.isalnum() else f"{image.key}.png"
            if image.key in found:
                continue
            if not (folder / name).is_file():
                image.load().save(folder / name)
            found[image.key] = Pictured(id=name, path=name, image=FileImage(root=str(folder), path=name))
    return list(found.values())
