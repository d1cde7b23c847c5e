"""Data made with models: captions drawn from one model, ranked by another, the best kept (CapFilt)."""

from isthmus.curate.capfilt import Curated, Curation, curate
from isthmus.curate.captioners import Captioner, FolderCaptioner, RunCaptioner
from isthmus.curate.pictures import Pictured, pictures_in, pictures_of, rendered
from isthmus.curate.rankers import AlignedRun, AnsweringRun, DualEncoder, Ranker, find_captioner, find_ranker

__all__ = [
    "AlignedRun",
    "AnsweringRun",
    "Captioner",
    "Curated",
    "Curation",
    "DualEncoder",
    "FolderCaptioner",
    "Pictured",
    "Ranker",
    "RunCaptioner",
    "curate",
    "find_captioner",
    "find_ranker",
    "pictures_in",
    "pictures_of",
    "rendered",
]
