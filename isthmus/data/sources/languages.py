"""Sources of several languages with a share for each language.

Source: InternVL 1.5 (arXiv:2404.16821), section 3.3, whose English data are joined by Chinese data of their own; this
way the share of a language does not depend on how many sources it has or how long they are.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from isthmus.data.sources.base import Source


def share_languages(sources: Mapping[str, Sequence[Source]], shares: Mapping[str, float]) -> tuple[Source, ...]:
    """The sources of every language with weights that give each language its share of the mixture.

    Inside a language the weights keep their proportions. `shares` need not add up to one.

    Raises:
        ValueError: a language without a share or without a source, or a share that is not above zero.
    """
    if set(sources) != set(shares) or not all(sources.values()):
        raise ValueError(
            f"Every language needs a source and a share: there are sources for "
            f"{sorted(name for name in sources if sources[name])}, and shares for {sorted(shares)}."
        )
    wrong = {name: share for name, share in shares.items() if not share > 0.0}
    if wrong:
        raise ValueError(f"A language's share is above zero, got {wrong}. Leave the language out instead.")
    made: list[Source] = []
    for name, mine in sources.items():
        total = sum(one.weight for one in mine)
        made += [replace(one, weight=one.weight / total * shares[name] / sum(shares.values())) for one in mine]
    return tuple(made)
