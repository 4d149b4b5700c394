"""Makes `phrases.txt` from captions, one a line: `python -m training.short_queries.natural < captions.txt`.

Only phrases and how often they occur are kept, nothing of the captions. What ships was counted over the
captions of Flickr30k and COCO val2017 and the titles of openclipart, noto-emoji, Tux Paint and IKEA.
"""

import sys
from collections import Counter
from collections.abc import Iterable

from training.short_queries.phrases import FOLDER, KINDS, Phrase, vocabulary

LEAST_USES = 5


def count_phrases(captions: Iterable[str]) -> Counter[Phrase]:
    """How many captions hold each phrase word for word, nouns by any of their words."""
    words = vocabulary()
    counts: Counter[Phrase] = Counter()
    for caption in captions:
        nouns = (phrase for phrase in words.mentioned(caption) if phrase.kind == "noun")
        counts.update({*words.exact(caption), *nouns})
    return counts


def main() -> None:
    counts = count_phrases(sys.stdin)
    kept = sorted(phrase for phrase, uses in counts.items() if uses >= LEAST_USES or phrase.kind == "noun")
    kept.sort(key=lambda phrase: KINDS.index(phrase.kind))
    lines = [f"{phrase.kind}\t{phrase.noun}\t{phrase.modifier}\t{counts[phrase]}\n" for phrase in kept]
    head = "# Kind, noun, modifier and uses in captions. Made by python -m training.short_queries.natural\n"
    (FOLDER / "phrases.txt").write_text(head + "".join(lines), "utf-8")


if __name__ == "__main__":
    main()
