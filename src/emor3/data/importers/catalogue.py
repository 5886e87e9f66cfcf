"""The table SETS: every set that `emor3 data import` knows, with its layout, label policies and where it is obtained.

A new importer is a reader in a module beside this one, and its entry in SETS.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from emor3.data.importers.class_folders import WEBEMO6, ClassFolders, own_folders, webemo
from emor3.data.importers.faces import FERPLUS_LABELS, fer2013, ferplus
from emor3.data.importers.items import DROP_TIES, FIRST_OF_TIES, SPLITS, Reader
from emor3.data.importers.lists import (
    KEYWORD,
    OASIS_POLICIES,
    VOTES6,
    VOTES7,
    MikelsVotes,
    artphoto,
    emoset,
    emotion6,
    oasis,
    rafdb,
)
from emor3.data.importers.tables import hub, table
from emor3.errors import UserError, did_you_mean
from emor3.method.labels import EKMAN6, EKMAN7, MIKELS8, WEBEMO2, WEBEMO7, WEBEMO25, LabelSet

UNBIASED6 = LabelSet(
    "unbiasedemo6",
    ("anger", "fear", "joy", "love", "sadness", "surprise"),
    polarity={"joy": 1, "love": 1, "anger": -1, "fear": -1, "sadness": -1},
)
WEBEMO_SIX = LabelSet("webemo6", WEBEMO6, polarity={label: WEBEMO7.polarity[label] for label in WEBEMO6})
FERPLUS8 = LabelSet("ferplus8", FERPLUS_LABELS, polarity={**EKMAN7.polarity, "contempt": -1})

AS_GIVEN = "as-given"
TIES: Mapping[str, LabelSet | None] = {DROP_TIES: MIKELS8, FIRST_OF_TIES: MIKELS8}


@dataclass(frozen=True)
class DataSet:
    """One distributed set."""

    title: str
    read: Reader
    policies: Mapping[str, LabelSet | None]
    """Label policy -> the label set it gives; the first is the default, None takes the labels that are found."""
    expected: str
    obtain: str
    published: int | None = None
    """Images of the set as its authors count them."""
    terms: str = ""
    """What its authors ask of users, where they say it."""


def _plain(labels: LabelSet) -> Mapping[str, LabelSet | None]:
    return {AS_GIVEN: labels}


IMAGE_EMOTION = "www.imageemotion.org (Machajdik and Hanbury 2010)"
LDL = "the authors of the Flickr_LDL and Twitter_LDL sets (Yang, Sun and Sun, AAAI 2017)"
YOURS = "your own files: docs/datasets.md shows the layout"

SETS: Mapping[str, DataSet] = {
    "emoset": DataSet(
        "EmoSet-118K",
        emoset,
        _plain(MIKELS8),
        "info.json, {train,val,test}.json, annotation/<emotion>/*.json and image/<emotion>/*.jpg",
        "vcc.tech/EmoSet (Yang et al., ICCV 2023)",
        118_102,
    ),
    "emotion6": DataSet(
        "Emotion6",
        emotion6,
        {KEYWORD: EKMAN6, VOTES7: EKMAN7, VOTES6: EKMAN6},
        "ground_truth.txt (tab-separated) and images/<keyword>/<n>.jpg",
        "the Advanced Multimedia Processing Lab at Cornell (Peng et al., CVPR 2015)",
        1_980,
    ),
    "webemo": DataSet(
        "WebEmo",
        webemo,
        {"webemo25": WEBEMO25, "webemo7": WEBEMO7, "webemo6": WEBEMO_SIX, "webemo2": WEBEMO2},
        "images/train25/<0..24>/ and images/test25/<0..24>/ with the pictures that the lists of addresses name",
        "rpand002.github.io/emotion.html (Panda et al., ECCV 2018)",
    ),
    "fi": DataSet(
        "FI",
        ClassFolders(MIKELS8, splits=SPLITS),
        _plain(MIKELS8),
        "train/<Emotion>/ and test/<Emotion>/ with Mikels' eight labels",
        "its authors (You, Luo, Jin and Yang, AAAI 2016)",
    ),
    "unbiasedemo": DataSet(
        "UnBiasedEmo",
        ClassFolders(UNBIASED6),
        _plain(UNBIASED6),
        "the folders anger, fear, joy, love, sadness and surprise, with images at any depth",
        "rpand002.github.io/emotion.html (Panda et al., ECCV 2018)",
    ),
    "artphoto": DataSet(
        "ArtPhoto", artphoto, _plain(MIKELS8), "testImages_artphoto/<label>_<id>.jpg", IMAGE_EMOTION, 806
    ),
    "abstract": DataSet(
        "Abstract",
        MikelsVotes("ABSTRACT_groundTruth.csv", "testImages_abstract", ","),
        TIES,
        "ABSTRACT_groundTruth.csv and testImages_abstract/",
        IMAGE_EMOTION,
        280,
    ),
    "flickr-ldl": DataSet(
        "Flickr_LDL", MikelsVotes("ground_truth.txt", "images", None), TIES, "ground_truth.txt and images/", LDL
    ),
    "twitter-ldl": DataSet(
        "Twitter_LDL", MikelsVotes("ground_truth.txt", "images", None), TIES, "ground_truth.txt and images/", LDL
    ),
    "emotionroi": DataSet(
        "EmotionROI",
        ClassFolders(EKMAN6, splits=SPLITS),
        _plain(EKMAN6),
        "train/<emotion>/ and test/<emotion>/ with Ekman's six labels",
        "the Advanced Multimedia Processing Lab at Cornell (Peng et al., ICIP 2016)",
        1_980,
    ),
    "caer-s": DataSet(
        "CAER-S",
        ClassFolders(EKMAN7, splits=SPLITS),
        _plain(EKMAN7),
        "train/ and test/ with the folders Anger, Disgust, Fear, Happy, Neutral, Sad and Surprise",
        "caer-dataset.github.io (Lee et al., ICCV 2019)",
    ),
    "fer2013": DataSet(
        "FER2013",
        fer2013,
        _plain(EKMAN7),
        "fer2013.csv with the columns emotion, pixels and Usage",
        "Kaggle: Challenges in Representation Learning, Facial Expression Recognition",
        35_887,
    ),
    "ferplus": DataSet(
        "FER+",
        ferplus,
        {"ekman7": EKMAN7, "ferplus8": FERPLUS8},
        "fer2013.csv (pictures) and fer2013new.csv (votes) side by side",
        "github.com/microsoft/FERPlus for the votes, Kaggle for fer2013.csv",
    ),
    "raf-db": DataSet(
        "RAF-DB",
        rafdb,
        {"aligned": EKMAN7, "original": EKMAN7},
        "EmoLabel/list_patition_label.txt and Image/aligned/ (or Image/original/)",
        "its authors, on request (Li, Deng and Du, CVPR 2017)",
        15_339,
    ),
    "oasis": DataSet(
        "OASIS",
        oasis,
        OASIS_POLICIES,
        "OASIS.csv and images/<theme>.jpg",
        "github.com/bkurdi/shiny-server, by its first author (Kurdi, Lozano and Banaji 2017)",
        900,
        "free use in research, cite doi:10.3758/s13428-016-0715-3; single pictures belong to whom its column Source "
        "names; some show nudity, violence or people who can be recognised",
    ),
    "folders": DataSet(
        "class folders", own_folders, {AS_GIVEN: None}, "[train|val|test/]<label>/ with images at any depth", YOURS
    ),
    "table": DataSet(
        "a table",
        table,
        {AS_GIVEN: None},
        "a .csv, .tsv, .jsonl or .parquet file with a column for the image and one for the label",
        YOURS,
    ),
    "hub": DataSet(
        "a data set of the hub",
        hub,
        {AS_GIVEN: None},
        "a folder (or a hub name) that the datasets library loads, with columns such as images, problem and answer",
        "huggingface.co/datasets",
    ),
}


def known_set(name: str) -> DataSet:
    """The set of a name. Raises UserError, naming the nearest, for an unknown one."""
    if name in SETS:
        return SETS[name]
    hint = f"{did_you_mean(name, SETS)} There are".lstrip()
    raise UserError(f"unknown data set {name!r}: {hint} {', '.join(SETS)}")
