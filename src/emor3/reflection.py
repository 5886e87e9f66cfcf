"""The Reflective Emotional Reward's questions, built from a parsed completion, and the reading of the replies."""

from emor3.taxonomy import LabelSet
from emor3.thinking import load_template, render
from emor3.types import Aspect, Question


def consistency_question(image: str, trigger: str) -> Question:
    """Visual-text consistency: image + s1, "does this text describe the image?"."""
    text = render(load_template("consistency"), trigger=trigger)
    return Question(Aspect.CONSISTENCY, text, ("Yes", "No"), image)


def coherence_question(trigger: str, feeling: str, labels: LabelSet) -> Question:
    """Emotional coherence: s1 + s2 without the image, "which emotion, one of K labels?"."""
    text = render(load_template("coherence"), trigger=trigger, feeling=feeling, labels=", ".join(labels.labels))
    return Question(Aspect.COHERENCE, text, labels.labels)
