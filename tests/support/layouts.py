"""Small copies of the public sets, each in the layout in which it is distributed."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from scipy.io import savemat

MIKELS = ("amusement", "awe", "contentment", "excitement", "anger", "disgust", "fear", "sadness")
EKMAN = ("anger", "disgust", "fear", "joy", "sadness", "surprise")
WEBEMO_SPELLING = (
    *("affection", "cheerfullness", "confusion", "contentment", "disappointment", "disgust", "enthrallment", "envy"),
    *("exasperation", "gratitude", "horror", "irritabilty", "lust", "neglect", "nervousness", "optimism", "pride"),
    *("rage", "relief", "sadness", "shame", "suffering", "surprise", "sympathy", "zest"),
)


def image(path: Path, colour: str = "teal", size: tuple[Any, ...] = (8, 8)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path)


def text(path: Path, *lines: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def emoset(root: Path, with_ids: bool = False) -> None:
    """Three-part rows as shipped; four-part rows as the set's own text describes them."""
    label2idx = dict(zip(MIKELS, range(8), strict=True))
    info = {"label2idx": label2idx, "idx2label": {str(index): name for name, index in label2idx.items()}}
    text(root / "info.json", json.dumps({**info, "scene": {"label2idx": {"beach": 0}}}))
    for split in ("train", "val", "test"):
        rows = []
        for emotion in MIKELS:
            name = f"{emotion}_{split}"
            picture, annotation = f"image/{emotion}/{name}.jpg", f"annotation/{emotion}/{name}.json"
            image(root / picture)
            full = {"scene": "beach", "facial_expression": "smile", "object": ["Dog", "Ball"], "brightness": 0.6}
            known = full if emotion == "awe" else {"brightness": 0.1, "colorfulness": 0.2}
            text(root / annotation, json.dumps({"image_id": name, "emotion": emotion, **known}))
            rows.append([emotion, name, picture, annotation] if with_ids else [emotion, picture, annotation])
        text(root / f"{split}.json", json.dumps(rows))


def emotion6(root: Path, header: str = "[image_filename]\t[valence]\t[arousal]\t[prob. anger]\t…") -> None:
    """A few of the 330 x 6 pictures; every keyword folder has a `1.jpg`."""
    votes = {  # anger disgust fear joy sadness surprise neutral
        "anger/1.jpg": "3.0\t5.0\t0.2\t0.0\t0.0\t0.0\t0.6\t0.0\t0.2",  # most voters felt sadness
        "disgust/1.jpg": "1.0\t9.0\t0.0\t0.9\t0.0\t0.0\t0.0\t0.0\t0.1",
        "fear/1.jpg": "5.0\t5.0\t0.0\t0.0\t0.3\t0.0\t0.0\t0.1\t0.6",  # neutral before fear
        "joy/1.jpg": "9.0\t1.0\t0.0\t0.0\t0.0\t1.0\t0.0\t0.0\t0.0",
        "sadness/1.jpg": "2.0\t3.0\t0.0\t0.4\t0.0\t0.0\t0.4\t0.2\t0.0",  # a tie
        "surprise/1.jpg": "5.0\t5.0\t0.0\t0.0\t0.0\t0.0\t0.0\t0.0\t1.0",  # nobody felt any of the six
    }
    for name in votes:
        image(root / "images" / name)
    text(root / "ground_truth.txt", header, *(f"{name}\t{cells}" for name, cells in votes.items()))


def webemo(root: Path) -> None:
    for split in ("train25", "test25"):
        for index in range(25):
            image(root / f"images/{split}/{index}/picture_{index}.jpg")
        text(root / f"{split}.txt", *(f"http://example.org/{index}.jpg {index}" for index in range(25)))


def fi(root: Path) -> None:
    for split in ("train", "test"):
        for emotion in MIKELS:
            image(root / split / emotion.capitalize() / "1.jpg")


def unbiasedemo(root: Path) -> None:
    for emotion in ("anger", "fear", "joy", "love", "sadness", "surprise"):
        image(root / emotion / "joy" / "dog" / "1.jpg")  # the label is the first component, not the nearest folder


def artphoto(root: Path) -> None:
    for word in ("amusement", "anger", "awe", "content", "disgust", "excitement", "fear", "sad"):
        image(root / f"testImages_artphoto/{word}_0001.jpg")
    (root / "testImages_artphoto/Thumbs.db").write_bytes(b"x")
    (root / "testImages_artphoto/._sad_0001.jpg").write_bytes(b"x")


def abstract(root: Path) -> None:
    text(
        root / "ABSTRACT_groundTruth.csv",
        "'','Amusement','Anger','Awe','Content','Disgust','Excitement','Fear','Sad'",
        "'abstract_0001.jpg',9,0,2,1,0,2,0,0",
        "'abstract_0002.jpg',0,0,0,5,0,0,0,5",  # contentment and sadness
        "'abstract_0003.jpg',0,0,0,1,0,0,0,8",
    )
    for number in (1, 2, 3):
        image(root / f"testImages_abstract/abstract_000{number}.jpg")


def ldl(root: Path) -> None:
    text(
        root / "ground_truth.txt",
        "images-name Amusement Awe Contentment Excitement Anger Disgust Fear Sadness",
        "1.jpg 1 6 3 1 0 0 0 0",
        "2.jpg 4 4 0 0 0 0 0 3",
        "3.jpg 0 0 0 0 0 0 0 0",
        "4.jpg 0 0 0 0 0 2 7 2",
    )
    for number in (1, 2, 3, 4):
        image(root / f"images/{number}.jpg")


def emotionroi(root: Path) -> None:
    for split in ("train", "test"):
        for emotion in EKMAN:
            image(root / split / emotion / "1.jpg")


def caer_s(root: Path) -> None:
    for split in ("train", "test"):
        for emotion in ("Anger", "Disgust", "Fear", "Happy", "Neutral", "Sad", "Surprise"):
            image(root / split / emotion / "0001.png")


def fer2013(root: Path) -> None:
    with (root / "fer2013.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["emotion", "pixels", "Usage"])
        for emotion, usage in (
            (0, "Training"),
            (3, "Training"),
            (6, "PublicTest"),
            (4, "PrivateTest"),
            (5, "PrivateTest"),
        ):
            table.writerow([emotion, " ".join([str(emotion * 40)] * 48 * 48), usage])


def ferplus(root: Path) -> None:
    fer2013(root)
    text(
        root / "fer2013new.csv",
        "Usage,Image name,neutral,happiness,surprise,sadness,anger,disgust,fear,contempt,unknown,NF",
        "Training,fer0000000.png,4,0,0,1,5,0,0,0,0,0",
        "Training,fer0000001.png,0,9,0,0,0,0,0,1,0,0",
        "PublicTest,,0,0,0,0,0,0,0,0,0,10",  # no face: it has no name either
        "PrivateTest,fer0000002.png,2,0,0,2,0,0,0,6,0,0",
        "PrivateTest,fer0000003.png,0,0,0,3,3,0,0,0,4,0",
    )


def raf_db(root: Path) -> None:
    rows = []
    for number in range(1, 8):
        for split in ("train", "test"):
            name = f"{split}_{number:05d}"
            image(root / f"Image/aligned/{name}_aligned.jpg")
            image(root / f"Image/original/{name}.jpg")
            rows.append(f"{name}.jpg {number}")
    text(root / "EmoLabel/list_patition_label.txt", *rows)


def oasis(root: Path) -> None:
    """Lines end in carriage returns alone, as in the authors' own file."""
    lines = [
        ",Theme,Category,Source,Valence_mean,Valence_SD,Valence_N,Arousal_mean,Arousal_SD,Arousal_N",
        "I1,Acorns 1,Object,Pixabay,4.68627451,0.954202712,102,2.346534653,1.602720459,101",
        "I2,Acorns 2,Object,Pixabay,4.519607843,0.841149522,102,2.227722772,1.399151086,101",
        "I3,Alcohol 2,Object,Pixabay,4.25,1.136686445,108,3,1.700942058,104",
        "I4,Angry face 1,Person,Pixabay,3.382352941,0.954863711,102,3.257425743,1.480901518,101",
        "I5,Car crash 1,Scenery,Wikipedia,1.852941176,0.762967874,102,4.554455446,1.757698766,101",
    ]
    (root / "OASIS.csv").write_bytes("\r".join(lines).encode())
    for line in lines[1:]:
        image(root / f"images/{line.split(',')[1]}.jpg")


def vecbench(root: Path) -> None:
    """Rows of two tasks; paths are those of the authors' machine, of which the end is ours."""
    rows = []
    for task, truth, name in (
        *(("EmoSet-8", emotion, f"EmoSet/{emotion}.jpg") for emotion in MIKELS),
        ("WebEmo-2", "Positive", "WebEmo/1.jpg"),
        ("EmoSet-8", "boredom", "EmoSet/awe.jpg"),
        ("EmoSet-8", "awe", "EmoSet/gone.jpg"),
    ):
        if "gone" not in name:
            image(root / "images" / name)
        content = [{"type": "image", "image": f"/home/authors/data/images/{name}"}, {"type": "text", "text": "Which?"}]
        rows.append(
            {
                "task": task,
                "ground_truth": truth,
                "candidates": list(MIKELS),
                "conversations": [{"role": "user", "content": content}],
            }
        )
    text(root / "test_8k.jsonl", *map(json.dumps, rows))


def mvei(root: Path) -> None:
    entries = []
    for name in ("amusement_1.jpg", "fear_2.jpg"):
        image(root / "images" / name)
        statements = [
            {"statement": "The picture cheers people up.", "label": "Correct", "class": "sentiment polarity"},
            {
                "statement": "Somebody who is afraid of heights would enjoy it.",
                "label": "Incorrect",
                "class": "perception subjectivity",
            },
        ]
        entries.append({"image_id": name, "statement_list": statements})
    entries[1]["statement_list"].append({"statement": " ", "label": "Correct", "class": "scene context"})
    text(root / "MVEI_metadata.json", json.dumps(entries))


def eemo_bench(root: Path) -> None:
    """Two questions on pairs and one on a single image, with annotations as in the authors' own file."""

    def label(ranking: str, valence: float, place: str = "1") -> str:
        category = "category:Abstract/Cartoon image     "
        return f"[Image{place}] Ranking:{ranking}     {category}Valence:{valence}  Arousal:6.44  Dominance:5.44"

    angry, tied = "{'Anger': 33, 'Surprise': 28, 'Joy': 22}", "{'Joy': 30, 'Neutral': 30, 'Fear': 1}"
    pairs = [
        {
            "id": place,
            "image1_url": "579.jpg",
            "image1_label": label(angry, 5.33),
            "image2_url": "100.jpg",
            "image2_label": label(tied, 3.89, "2"),
            "question": "Is anger one of them?",
        }
        for place in range(2)
    ]
    single = [
        {
            "id": 0,
            "image_url": "7.jpg",
            "image_label": label("{'Sadness': 50, 'Fear': 20, 'Neutral': 2}", 1.0, ""),
            "question": "Why?",
        }
    ]
    text(root / "EEmo-Bench(pair).json", json.dumps(pairs))
    text(root / "EEmo-Bench(single).json", json.dumps(single))
    for name in ("579", "100", "7"):
        image(root / f"images/{name}.jpg")


def emotic(root: Path) -> None:
    """A structure as Matlab writes it: one annotator in train, two in val and test, two people in one image."""

    def person(*annotators: tuple[list[str], float]) -> dict[str, Any]:
        cells = [np.array(chosen, dtype=object) for chosen, _ in annotators]
        return {
            "body_bbox": [0, 0, 4, 8],
            "annotations_categories": [{"categories": cell} for cell in cells],
            "annotations_continuous": [
                {"valence": rating, "arousal": 5.5, "dominance": 5.0} for _, rating in annotators
            ],
        }

    def entry(name: str, *people: dict[str, Any]) -> dict[str, Any]:
        image(root / "emotic/mscoco/images" / name)
        return {"filename": name, "folder": "mscoco/images", "person": list(people)}

    sure = person((["Happiness", "Pleasure"], 10.0), (["Happiness", "Doubt/Confusion"], 1.0))
    parts = {
        "train": [
            entry("1.jpg", person((["Engagement"], 7.0))),
            entry("2.jpg", person((["Peace", "Esteem"], float("nan")))),
        ],
        "val": [entry("3.jpg", sure)],
        "test": [entry("4.jpg", sure), entry("5.jpg", sure, sure)],
    }
    (root / "Annotations").mkdir()
    savemat(root / "Annotations/Annotations.mat", parts)


def folders(root: Path) -> None:
    for split in ("train", "test"):
        for label in ("at peace", "uneasy"):
            image(root / split / label / f"{split}.png")


BUILDERS = {
    "emoset": emoset,
    "emotion6": emotion6,
    "webemo": webemo,
    "fi": fi,
    "unbiasedemo": unbiasedemo,
    "artphoto": artphoto,
    "abstract": abstract,
    "flickr-ldl": ldl,
    "twitter-ldl": ldl,
    "emotionroi": emotionroi,
    "caer-s": caer_s,
    "fer2013": fer2013,
    "ferplus": ferplus,
    "raf-db": raf_db,
    "oasis": oasis,
    "emotic": emotic,
    "vecbench": vecbench,
    "mvei": mvei,
    "eemo-bench": eemo_bench,
    "folders": folders,
}
