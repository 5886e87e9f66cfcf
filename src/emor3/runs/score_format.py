"""Keys of the rows that `emor3 score` reads and of the lines that it prints, for its help and the reference page."""

import textwrap
from collections.abc import Mapping

ROW = {
    "id": "string or number; stands in the result",
    "response": "the completion, as the model wrote it",
    "label": "the true label, one of `labels`",
    "labels": "optional list of strings, the label set; without it Mikels' eight",
    "judge": 'replies of a judge, {"consistency": "Yes", "coherence": "sadness"}; null or absent: none are saved',
    "images": "with --judge: list of image files, from the folder of FILE; for rows without saved replies",
    "text": "with --judge: optional, what accompanies the images",
    "clip": "with --judge: optional, name of the video whose frames, in order of time, the images are",
    "weights": 'optional, {"reflective": 0.1, "format": 0.1, "confidence": 0}: numbers from 0 to 1 in place of these',
    "thinking": "optional, how the completion thinks: steps (the default), confidence, free or direct",
}
"""Keys of a row of `emor3 score`, as its help and the reference page list them; other keys are ignored."""

RESULT = {
    "id": "of the row",
    "format": "1 if the completion keeps the grammar of its way of thinking, else 0",
    "accuracy": "1 if the answer is the label, else 0",
    "consistency": "1 if the judge says that step 1 describes the images, else 0; null if none was asked",
    "coherence": "1 if the judge reads the label from steps 1 and 2, else 0; null if none was asked",
    "confidence": "1 - (stated confidence - accuracy) squared, 0 without a number; there if it has a weight",
    "reflective": "mean of consistency and coherence; null if either is",
    "overall": "the reward: the weighted sum of the parts",
    "asked": "whether the judge was asked about consistency and coherence",
    "answer": "what stands in the box, or null",
    "problem": "why the format is broken, or null",
    "judge": "with --judge: the replies behind consistency and coherence, as a row holds them",
    "error": "alone beside id: why the row cannot be scored",
}
"""Keys of a line that `emor3 score` prints."""


def keys_text(title: str, keys: Mapping[str, str], width: int = 76) -> str:
    """Keys with what they hold as a block of a command's help, which is not wrapped again."""
    column = max(map(len, keys)) + 2
    lines = [
        textwrap.fill(meaning, width, initial_indent=name.ljust(column), subsequent_indent=" " * column)
        for name, meaning in keys.items()
    ]
    return "\n".join(["\b", f"{title}:", *lines])
