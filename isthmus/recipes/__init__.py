"""Recipes, chains of them, and studies by name. The table is light: a module is imported when its recipe is called."""

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from isthmus.config import did_you_mean

if TYPE_CHECKING:
    from isthmus.compare.study import Study
    from isthmus.train.chain import Chain
    from isthmus.train.stage import Stage

T = TypeVar("T")


@dataclass(frozen=True)
class Recipe(Generic[T]):
    """A function of no arguments, `isthmus.recipes.MODULE.FUNCTION`, that returns a stage, a chain or a study."""

    module: str
    function: str
    summary: str
    """One line for lists; the first line of the function's docstring."""

    @property
    def make(self) -> Callable[[], Any]:
        """The function itself. Its docstring cites paper and code and says where each number comes from."""
        made: Callable[[], Any] = getattr(importlib.import_module(f"isthmus.recipes.{self.module}"), self.function)
        return made

    def __call__(self) -> T:
        """The stage, chain or study."""
        value: T = self.make()
        return value


RECIPES: "dict[str, Recipe[Stage]]" = {
    "quickstart": Recipe(
        "quickstart",
        "stage",
        "Train a connector between the bundled eye and speaker, both frozen, in minutes on a CPU.",
    ),
    "sounds": Recipe(
        "sounds",
        "stage",
        "Train two branches, pictures and spoken digits, before the bundled speaker, in minutes on a CPU.",
    ),
    "sounds-esc10": Recipe(
        "sounds_esc10",
        "stage",
        "Train the branch for sounds on ESC-10 and spoken digits, before the bundled speaker; ESC-10 is a folder of "
        "yours.",
    ),
    "clips": Recipe(
        "clips",
        "stage",
        "Train two branches, clips and spoken digits, before the bundled speaker with adapters, in minutes on a CPU.",
    ),
    "grounding": Recipe(
        "grounding",
        "stage",
        "Train connector and speaker to find named things and to name what is in a box, in half an hour of a CPU core.",
    ),
    "llava15/stage1": Recipe("llava15", "stage1", "Align: train the MLP alone on 558k captioned images."),
    "llava15/stage2": Recipe("llava15", "stage2", "Instruct: train the MLP and the LLM on 665k conversations."),
    "llava15/tiny-stage1": Recipe(
        "llava15", "tiny_stage1", "LLaVA-1.5's first stage on the bundled backbones and data."
    ),
    "llava15/tiny-stage2": Recipe(
        "llava15", "tiny_stage2", "LLaVA-1.5's second stage on the bundled backbones and data."
    ),
    "blip2/stage1": Recipe(
        "blip2",
        "stage1",
        "Align: the Q-Former compares, matches and writes captions over a frozen ViT-g, as the paper says.",
    ),
    "blip2/stage1-lavis": Recipe(
        "blip2",
        "stage1_lavis",
        "Align as the released configuration does: 10 epochs of COCO and Visual Genome captions, other rates.",
    ),
    "blip2/tiny-contrast": Recipe(
        "blip2_tiny",
        "tiny_contrast",
        "BLIP-2's first stage on the bundled models, its cheapest objective alone: images and texts are compared.",
    ),
    "blip2/tiny-stage1": Recipe(
        "blip2_tiny",
        "tiny_stage1",
        "BLIP-2's first stage on the bundled eye and reader, and the bundled data: all three objectives.",
    ),
    "blip2/tiny-stage2": Recipe(
        "blip2_tiny",
        "tiny_stage2",
        "BLIP-2's second stage on the bundled speaker, frozen: the aligned Q-Former learns to be asked.",
    ),
    "blip2/stage2-opt": Recipe(
        "blip2_stage2",
        "stage2_opt",
        "Speak: the aligned Q-Former writes captions through a frozen OPT-2.7B, as the paper says.",
    ),
    "blip2/stage2-opt-lavis": Recipe(
        "blip2_stage2",
        "stage2_opt_lavis",
        "Speak as the released configuration does: 10 epochs of COCO and Visual Genome captions, other rates.",
    ),
    "blip2/stage2-t5": Recipe(
        "blip2_stage2",
        "stage2_t5",
        "Speak: the aligned Q-Former and half a caption go into a frozen Flan-T5-XL, which writes the other half.",
    ),
    "blip2/vqa": Recipe(
        "blip2_tasks",
        "vqa",
        "Answer: encoder and Q-Former learn, the Q-Former reads the question too, OPT-2.7B stays frozen.",
    ),
    "blip2/caption": Recipe(
        "blip2_tasks",
        "caption",
        'Describe: encoder and Q-Former learn COCO\'s captions after "a photo of", OPT-2.7B stays frozen.',
    ),
    "blip2/retrieval": Recipe(
        "blip2_tasks",
        "retrieval",
        "Find: the first stage goes on over COCO with its encoder, captions of one image sharing the target.",
    ),
    "instructblip/vicuna": Recipe(
        "instructblip",
        "vicuna",
        "Instruct: a Q-Former that reads the instruction, before a frozen Vicuna-7B.",
    ),
    "instructblip/t5": Recipe(
        "instructblip",
        "t5",
        "Instruct: a Q-Former that reads the instruction, before a frozen Flan-T5-XL.",
    ),
    "llava15-hd/stage1": Recipe(
        "llava15_hd",
        "stage1",
        "Align: LLaVA-1.5's first stage on CLIP at 224 px, one view an image.",
    ),
    "llava15-hd/stage2": Recipe(
        "llava15_hd",
        "stage2",
        "Instruct: up to six tiles merged into one map whose rows end with a learned token, and the whole image.",
    ),
    "llava-next/stage1": Recipe(
        "llava_next",
        "stage1",
        "Align: as LLaVA-1.5 does, the MLP alone on 558k captioned images.",
    ),
    "llava-next/stage2": Recipe(
        "llava_next",
        "stage2",
        "Instruct: tiles and the whole image, with encoder, MLP, row ends and LLM all learning.",
    ),
    "llava-next-interleave/stage1": Recipe(
        "llava_next_interleave",
        "stage1",
        "Align: the MLP between SigLIP and Qwen1.5, as LLaVA-NeXT does.",
    ),
    "llava-next-interleave/stage2": Recipe(
        "llava_next_interleave",
        "stage2",
        "Single images: tiles of any resolution, everything learns, as LLaVA-NeXT does.",
    ),
    "llava-next-interleave/stage3": Recipe(
        "llava_next_interleave",
        "stage3",
        "Interleave: many images, frames, views and patches of M4-Instruct, half in front of the text, half in place.",
    ),
    "deco/stage1": Recipe(
        "deco",
        "stage1",
        "Align: pooling without parameters and the MLP after it, on 558k captioned images.",
    ),
    "deco/stage2": Recipe(
        "deco",
        "stage2",
        "Instruct: projector and language model on 665k conversations.",
    ),
    "honeybee/stage1": Recipe(
        "honeybee",
        "stage1",
        "Pre-train: the abstractor alone on captions of two collections, as the paper's short schedule says.",
    ),
    "honeybee/stage2": Recipe(
        "honeybee",
        "stage2",
        "Instruct: abstractor and language model on thirteen sets in fixed shares, as the paper's short schedule says.",
    ),
    "honeybee/stage1-released": Recipe(
        "honeybee",
        "stage1_released",
        "Pre-train as the released configuration does: the last layer, a third of the rate.",
    ),
    "honeybee/stage2-released": Recipe(
        "honeybee",
        "stage2_released",
        "Instruct as the released configuration does, on the last layer.",
    ),
    "deepstack/l/stage1": Recipe(
        "deepstack",
        "l_stage1",
        "Align: DeepStack-L from the start, the MLP alone on 558k captioned images.",
    ),
    "deepstack/l/stage2": Recipe(
        "deepstack",
        "l_stage2",
        "Instruct: DeepStack-L, the MLP and the language model on 665k conversations; the encoder stands still.",
    ),
    "deepstack/v/stage1": Recipe(
        "deepstack",
        "v_stage1",
        "Align: DeepStack-V from the start, the MLP alone on 558k captioned images.",
    ),
    "deepstack/v/stage2": Recipe(
        "deepstack",
        "v_stage2",
        "Instruct: DeepStack-V, encoder, MLP and language model on 665k conversations.",
    ),
    "deepstack/hd/sft": Recipe(
        "deepstack",
        "hd_sft",
        "Instruct: DeepStack-L-HD, every view of LLaVA-NeXT refined by four crops of its own, tuned from it.",
    ),
    "internvl1/stage1": Recipe(
        "internvl1",
        "stage1",
        "Contrast: encoder and text side learn to tell which caption belongs to which image.",
    ),
    "internvl1/stage2": Recipe(
        "internvl1",
        "stage2",
        "Generate: encoder and LLaMA stand still; queries and new cross-attention compare, match and write.",
    ),
    "internvl1/stage3": Recipe(
        "internvl1",
        "stage3",
        "Instruct: an MLP carries QLLaMA's queries to a frozen Vicuna-7B, on 4M samples.",
    ),
    "internvl12/sft": Recipe(
        "internvl12",
        "sft",
        "Instruct: encoder, MLP and a 34-billion language model learn together at a fixed 448 px.",
    ),
    "internvl15/stage1": Recipe(
        "internvl15",
        "stage1",
        "Pre-train: encoder and MLP learn on captions, text in images and boxes; the language model stands still.",
    ),
    "internvl15/stage2": Recipe(
        "internvl15",
        "stage2",
        "Instruct: all 26 billion parameters learn on conversations of two languages.",
    ),
    "qwen-vl/stage1": Recipe(
        "qwen_vl",
        "stage1",
        "Pre-train: encoder and adapter learn from captions at 224 px, through a frozen language model.",
    ),
    "qwen-vl/stage2": Recipe(
        "qwen_vl",
        "stage2",
        "Many tasks: everything learns at 448 px, from captions to boxes, text in images and text alone.",
    ),
    "qwen-vl/stage3": Recipe(
        "qwen_vl",
        "stage3",
        "Chat: adapter and language model learn from 350k dialogues, the encoder stands still.",
    ),
    "mm1/pretrain": Recipe(
        "mm1",
        "pretrain",
        "Pre-train: everything learns, 45% interleaved pages, 45% captions, 10% text.",
    ),
    "mm1/sft": Recipe(
        "mm1",
        "sft",
        "Instruct: four crops of 672 px and the whole image, 720 tokens, on about 1.45M samples.",
    ),
    "video-llama/vision/stage1": Recipe(
        "video_llama",
        "vision_stage1",
        "Align: a video Q-Former over BLIP-2's frozen one learns from captioned clips and images.",
    ),
    "video-llama/vision/stage2": Recipe(
        "video_llama",
        "vision_stage2",
        "Instruct: the same parts learn from conversations about images and clips.",
    ),
    "video-llama/audio/stage1": Recipe(
        "video_llama",
        "audio_stage1",
        "Hear: an audio Q-Former joins the trained video branch, which stands still; trained on sounds themselves.",
    ),
    "video-llama/audio/stage2": Recipe(
        "video_llama",
        "audio_stage2",
        "Hear and answer: the audio Q-Former learns from questions about sounds.",
    ),
    "video-llama/tiny-audio-pictures": Recipe(
        "video_llama_tiny",
        "tiny_audio_pictures",
        "Video-LLaMA's trick on the bundled models: the audio branch learns from drawn digits and is fed spoken ones.",
    ),
    "video-llama/tiny-audio-sounds": Recipe(
        "video_llama_tiny",
        "tiny_audio_sounds",
        "The same branch trained on spoken digits themselves: what `video-llama/tiny-audio-pictures` is measured "
        "against.",
    ),
}

CHAINS: "dict[str, Recipe[Chain]]" = {
    "blip2/tiny": Recipe(
        "blip2_tiny",
        "chain",
        "BLIP-2 from its first stage to answers, on the bundled models: one command, minutes on two cores.",
    ),
}
"""Recipes that are trained one after another."""

STUDIES: "dict[str, Recipe[Study]]" = {
    "quickstart": Recipe("studies", "quickstart", "Four connectors, two seeds, in minutes on two CPU cores."),
    "shelf": Recipe("studies", "shelf", "Every connector there is, two seeds, in under two hours on two CPU cores."),
    "readme": Recipe(
        "studies",
        "readme",
        "The quickstart, longer, with five seeds, more questions, an aligned Q-Former and a trained text-only arm.",
    ),
    "blip2/with-itg": Recipe(
        "ablations",
        "with_itg",
        "BLIP-2's first stage with and without writing captions, at equal compute: what it does for retrieval.",
    ),
    "blip2/with-stage1": Recipe(
        "ablations",
        "with_stage1",
        "BLIP-2's second stage with and without the first before it, at an equal number of steps.",
    ),
    "resolution": Recipe(
        "detail",
        "resolution",
        "Digits and shapes by height: the whole picture, anyres, dynamic tiles and DeepStack at 80 visual tokens.",
    ),
    "resolution/digits": Recipe(
        "detail", "digits", "Digits alone by height, with enough of them to learn to read: the arms of resolution."
    ),
    "tiles/whole": Recipe(
        "detail", "whole_view", "Tiles with and without the whole picture, on what lies in several of them."
    ),
    "deepstack/controls": Recipe(
        "detail_deepstack",
        "controls",
        "DeepStack against its dummy residual, channels, and a longer sequence for the same training FLOPs.",
    ),
    "deepstack/sampling": Recipe(
        "detail_deepstack",
        "sampling",
        "DeepStack's groups taken from the crops in three ways: dilated in two dimensions, a crop a group, in one.",
    ),
    "deepstack/layers": Recipe(
        "detail_deepstack", "layers", "Two groups before early and before late layers of the speaker's six."
    ),
    "deepstack/interval": Recipe(
        "detail_deepstack", "interval", "Two groups with one, two, three and five layers from the first to the second."
    ),
    "deepstack/groups": Recipe(
        "detail_deepstack",
        "groups",
        "One, two, four and six groups, each of a crop of its own: more of them hold more pixels.",
    ),
    "deepstack/encoder": Recipe(
        "detail_deepstack",
        "encoder",
        "With DeepStack and without, the encoder frozen and trained: do they help each other?",
    ),
}


def find(name: str, table: Mapping[str, Recipe[T]], kind: str) -> Recipe[T]:
    """The entry of this exact name.

    Raises:
        ValueError: no such name, with the nearest ones.
    """
    if name not in table:
        raise ValueError(f"Unknown {kind} {name!r}.{did_you_mean(name, table)} There are: {', '.join(table)}.")
    return table[name]
