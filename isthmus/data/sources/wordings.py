"""The one place for how questions about bundled pictures are worded, and what their closed answers are.

The bundled language models are trained on text with these same wordings, so that a frozen one can answer when a
connector supplies what a description would have said.
"""

DESCRIBE = "Describe the picture."

KIND_QUESTION = "What kind of figure is this?"
KINDS = ("photo", "painting", "map", "chart", "table", "diagram", "micrograph")

SUBJECT_QUESTION = "Which subject is this from?"
SUBJECT_OF_BOOK = {
    "american-government": "politics",
    "anatomy-physiology": "anatomy",
    "astronomy": "astronomy",
    "chemistry-bundle": "chemistry",
    "college-physics-bundle": "physics",
    "college-success": "education",
    "introduction-anthropology": "anthropology",
    "introduction-philosophy": "philosophy",
    "introduction-political-science": "politics",
    "introduction-sociology": "sociology",
    "introductory-statistics-bundle": "statistics",
    "microbiology": "biology",
    "physics": "physics",
    "prealgebra-bundle": "mathematics",
    "psychology": "psychology",
    "university-physics-bundle": "physics",
    "us-history": "history",
    "world-history": "history",
}
SUBJECTS = tuple(sorted(set(SUBJECT_OF_BOOK.values())))

YES_NO = ("yes", "no")


def truth_question(sentence: str) -> str:
    """A person's sentence as a yes-or-no question: spaces collapsed, a small first letter."""
    text = " ".join(sentence.split())
    return f"Is it true that: {text[:1].lower()}{text[1:]}"


def clear_kind(kind: str, figure_type: str) -> str:
    """The kind of a textbook figure when keywords and pixels agree on it, else the empty string.

    `kind` is "photo" or "graphic", measured from the pixels; `figure_type` was read off the description.
    """
    if figure_type not in KINDS:
        return ""
    if figure_type in ("photo", "painting"):
        return figure_type if kind == "photo" else ""
    if figure_type in ("chart", "table", "diagram"):
        return figure_type if kind == "graphic" else ""
    return figure_type
