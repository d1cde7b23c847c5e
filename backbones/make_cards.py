"""Write the model cards: `python -m backbones.make_cards MEASURED.json isthmus/bundled`.

MEASURED.json holds what `probe_eye` ("eye") and `measure_language` ("language") printed, and the steps of each run.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

Measured = dict[str, Any]

LICENCES = """
## Licence
The weights are under Apache-2.0, like the rest of the package. They were trained on scenes made by the package's own
generator, on figures and texts of OpenStax textbooks (OpenStax, Rice University, CC BY 4.0, access for free at
openstax.org; the repositories and commits are named in `../textbook/README.md`), and on the official development part
of NLVR (A. Suhr, M. Lewis, J. Yeh, Y. Artzi, "A Corpus of Natural Language for Visual Reasoning", ACL 2017, CC BY 4.0).
"""

SOUND_LICENCES = """
## Licence
The weights are under Apache-2.0, like the rest of the package. They were trained on the Free Spoken Digit Dataset
(Zohar Jackson and others, CC BY-SA 4.0; the commit is named in `../digits/README.md`) and ESC-10 (K. J. Piczak, "ESC:
Dataset for Environmental Sound Classification", ACM Multimedia 2015, CC BY 3.0; clips of freesound.org under CC0 or
CC BY).
"""

ABOUT = {
    "ear": (
        "A small audio spectrogram transformer for sounds of 16 kHz, a second at a time",
        "`ASTModel`: 32 mel bins by 104 frames, patches of 16 x 16 every 8 (3 x 12 and two class tokens), width 128, 4 "
        "layers, 4 heads. Trained to name spoken digits of four speakers and ten kinds of sounds (ESC-10, folds 1 to "
        "3), from the mean of the patches and from each patch; the heads were thrown away.",
        "python -m backbones.ear --data DATA --out FOLDER --steps 380",
    ),
    "eye": (
        "A CLIP-style vision tower for pictures of 96 x 96 pixels",
        "`CLIPVisionModel`: patches of 8 pixels (12 x 12 and a class token), width 192, 6 layers, 3 heads. Trained by "
        "contrast of picture regions with phrases and of whole pictures with descriptions; the text tower and all "
        "projections were thrown away. Five in six training pictures are scenes of the exact world (train split), the "
        "rest textbook figures (train split) and NLVR boxes (official dev), squashed to a square.",
        "python -m backbones.eye --data DATA --out FOLDER --steps 1090",
    ),
    "speaker": (
        "A Llama-style causal language model",
        "`LlamaForCausalLM`: width 256, 6 layers, 4 heads, 8,000 pieces with byte fallback, 1,024 positions. Trained "
        "on text alone: described scenes of the exact world with questions and answers, NLVR's boxes in words with "
        "human sentences, textbook descriptions and captions. It never saw a picture.",
        "torchrun --nproc-per-node 2 -m backbones.speaker --data DATA --out FOLDER --log LOG --steps 6000",
    ),
    "translator": (
        "A T5-style encoder-decoder with the speaker's tokenizer",
        "`T5ForConditionalGeneration`: width 256, 3 + 3 layers, 4 heads, gated GELU. Trained on the speaker's texts: "
        "context and question in the encoder, the answer in the decoder, and span corruption in one of four examples.",
        "python -m backbones.translator --data DATA --tokenizer isthmus/bundled/speaker --out FOLDER --log LOG",
    ),
    "reader": (
        "A small BERT with `[DEC]` in its vocabulary, to start Q-Formers from",
        "`BertForMaskedLM`: width 192, 4 layers, 3 heads, 2,500 lower-case word pieces. Masked language modelling on "
        "descriptions, questions and textbook texts.",
        "python -m backbones.reader --data DATA --out FOLDER --log LOG",
    ),
}


def table(rows: dict[str, Any]) -> str:
    """Two columns of names and figures."""
    lines = ["| measured | figure |", "|---|---|"]
    for name, value in rows.items():
        lines.append(f"| {name} | {value:.3f} |" if isinstance(value, float) else f"| {name} | {value} |")
    return "\n".join(lines)


def figures(name: str, measured: Measured) -> str:
    """The tables of one backbone."""
    if name == "ear":
        return table(measured["ear"])
    if name == "eye":
        trained, untrained = measured["eye"]["trained"], measured["eye"]["untrained"]
        lines = ["| probe | this eye | untrained |", "|---|---|---|"]
        for probe, value in trained.items():
            beside = f"{untrained[probe]:.3f}" if probe in untrained else ""
            lines.append(f"| {probe} | {value:.3f} | {beside} |" if probe != "items" else f"| items | {value:.0f} | |")
        return "\n".join(lines)
    parts = [(key, rows) for key, rows in measured["language"].items() if key.startswith(name)]
    return "\n\n".join(f"{key.removeprefix(name + ', ')}:\n\n{table(rows)}" for key, rows in parts)


def card(name: str, measured: Measured) -> str:
    """The README of one folder."""
    title, what, command = ABOUT[name]
    run = measured["runs"][name]
    return (
        f"# {name}\n{title}.\n\n{what}\n\n## Training\n{run}\n\nLoss: `docs/pictures/loss_{name}.png`. Command:\n"
        f"```\n{command}\n```\n\n## Measured\n{figures(name, measured)}\n\nHow each figure is taken: "
        f"`docs/backbones.md`.\n{SOUND_LICENCES if name == 'ear' else LICENCES}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("measured", type=Path)
    parser.add_argument("bundled", type=Path)
    args = parser.parse_args()
    measured = json.loads(args.measured.read_text())
    for name in measured["runs"]:
        (args.bundled / name / "README.md").write_text(card(name, measured))


if __name__ == "__main__":
    main()
