"""What `isthmus curate` reads and prints."""

import torch
from rich.progress import Progress

from isthmus.cli.commands import Curate
from isthmus.curate import Curation, curate, find_captioner, find_ranker, pictures_in, pictures_of
from isthmus.llms import Generation


def curate_command(command: Curate) -> list[str]:
    """Run or go on with a curation; the lines to print. Raises ValueError on what `curate` refuses."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if not command.images.exists():
        raise ValueError(f"There is no folder or file {str(command.images)!r}.")
    root = command.root or (command.images if command.images.is_dir() else command.images.parent)
    pictures = pictures_in(command.images) if command.images.is_dir() else pictures_of(command.images, root)
    curation = Curation(
        candidates=command.candidates,
        keep=command.keep,
        least=command.least,
        shard=command.shard,
        seed=command.seed,
    )
    options = Generation(
        max_new_tokens=command.max_new_tokens, do_sample=True, temperature=command.temperature, top_p=command.top_p
    )
    captioner = find_captioner(command.captioner, options, prompt=command.prompt, device=device)
    ranker = find_ranker(command.ranker, prompt=command.prompt, device=device)
    with Progress() as bars:
        bar = bars.add_task("Curating", total=len(pictures))
        done = curate(
            curation,
            pictures,
            captioner,
            ranker,
            command.out,
            on_progress=lambda now, total: bars.update(bar, completed=now, total=total),
        )
    lines = [f"Kept {done.num_kept} captions of {done.num_images} images, dropped {done.num_dropped}."]
    lines += [f"Could not read {one}" for one in done.unreadable[:5]]
    return [
        *lines,
        f"Report: {done.report}",
        f"Train on them: --data.0.of.path {done.captions} --data.0.of.root {root}",
    ]
