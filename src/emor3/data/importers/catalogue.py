"""The table SETS: every set that `emor3 data import` knows, with its layout, label policies and where it is obtained.

A new importer is a reader in a module beside this one, and its entry in SETS.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from emor3.data.importers import class_folders, faces, lists, tables
from emor3.data.importers.benchmarks import eemobench, emotic, mvei, vecbench
from emor3.data.importers.class_folders import UNBIASED6, ClassFolders
from emor3.data.importers.clips import challenges, own
from emor3.data.importers.items import DROP_TIES, FIRST_OF_TIES, Reader
from emor3.data.importers.lists import MikelsVotes
from emor3.data.importers.sources import SPLITS
from emor3.errors import UserError, did_you_mean
from emor3.method.labels import EKMAN6, EKMAN7, MIKELS8, LabelSet

FERPLUS8 = LabelSet("ferplus8", faces.FERPLUS_LABELS, polarity={**EKMAN7.polarity, "contempt": -1})

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
    clips: bool = False
    """Whether it is one of video clips, of which frames are drawn."""


IMAGE_EMOTION = "www.imageemotion.org (Machajdik and Hanbury 2010)"
LDL = "the authors of the Flickr_LDL and Twitter_LDL sets (Yang, Sun and Sun, AAAI 2017)"
LAYOUTS = "docs/datasets.md shows the layout"
YOURS = f"your own files: {LAYOUTS}"

SETS: Mapping[str, DataSet] = {
    "emoset": DataSet(
        "EmoSet-118K",
        lists.emoset,
        {AS_GIVEN: MIKELS8},
        "info.json, {train,val,test}.json, annotation/<emotion>/*.json and image/<emotion>/*.jpg",
        "vcc.tech/EmoSet (Yang et al., ICCV 2023)",
        118_102,
    ),
    "emotion6": DataSet(
        "Emotion6",
        lists.emotion6,
        {lists.KEYWORD: EKMAN6, lists.VOTES7: EKMAN7, lists.VOTES6: EKMAN6},
        "ground_truth.txt (tab-separated) and images/<keyword>/<n>.jpg",
        "the Advanced Multimedia Processing Lab at Cornell (Peng et al., CVPR 2015)",
        1_980,
    ),
    "webemo": DataSet(
        "WebEmo",
        class_folders.webemo,
        class_folders.WEBEMO_POLICIES,
        "images/train25/<0..24>/ and images/test25/<0..24>/ with the pictures that the lists of addresses name",
        "rpand002.github.io/emotion.html (Panda et al., ECCV 2018)",
    ),
    "fi": DataSet(
        "FI",
        ClassFolders(MIKELS8, splits=SPLITS),
        {AS_GIVEN: MIKELS8},
        "train/<Emotion>/ and test/<Emotion>/ with Mikels' eight labels",
        "its authors (You, Luo, Jin and Yang, AAAI 2016)",
    ),
    "unbiasedemo": DataSet(
        "UnBiasedEmo",
        ClassFolders(UNBIASED6),
        {AS_GIVEN: UNBIASED6},
        "the folders anger, fear, joy, love, sadness and surprise, with images at any depth",
        "rpand002.github.io/emotion.html (Panda et al., ECCV 2018)",
    ),
    "artphoto": DataSet(
        "ArtPhoto", lists.artphoto, {AS_GIVEN: MIKELS8}, "testImages_artphoto/<label>_<id>.jpg", IMAGE_EMOTION, 806
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
        {AS_GIVEN: EKMAN6},
        "train/<emotion>/ and test/<emotion>/ with Ekman's six labels",
        "the Advanced Multimedia Processing Lab at Cornell (Peng et al., ICIP 2016)",
        1_980,
    ),
    "caer-s": DataSet(
        "CAER-S",
        ClassFolders(EKMAN7, splits=SPLITS),
        {AS_GIVEN: EKMAN7},
        "train/ and test/ with the folders Anger, Disgust, Fear, Happy, Neutral, Sad and Surprise",
        "caer-dataset.github.io (Lee et al., ICCV 2019)",
    ),
    "fer2013": DataSet(
        "FER2013",
        faces.fer2013,
        {AS_GIVEN: EKMAN7},
        "fer2013.csv with the columns emotion, pixels and Usage",
        "Kaggle: Challenges in Representation Learning, Facial Expression Recognition",
        35_887,
    ),
    "ferplus": DataSet(
        "FER+",
        faces.ferplus,
        {"ekman7": EKMAN7, "ferplus8": FERPLUS8},
        "fer2013.csv (pictures) and fer2013new.csv (votes) side by side",
        "github.com/microsoft/FERPlus for the votes, Kaggle for fer2013.csv",
    ),
    "raf-db": DataSet(
        "RAF-DB",
        lists.rafdb,
        {"aligned": EKMAN7, "original": EKMAN7},
        "EmoLabel/list_patition_label.txt and Image/aligned/ (or Image/original/)",
        "its authors, on request (Li, Deng and Du, CVPR 2017)",
        15_339,
    ),
    "oasis": DataSet(
        "OASIS",
        lists.oasis,
        lists.OASIS_POLICIES,
        "OASIS.csv and images/<theme>.jpg",
        "github.com/bkurdi/shiny-server, by its first author (Kurdi, Lozano and Banaji 2017)",
        900,
        "free use in research, cite doi:10.3758/s13428-016-0715-3; single pictures belong to whom its column Source "
        "names; some show nudity, violence or people who can be recognised",
    ),
    "emotic": DataSet(
        "EMOTIC",
        emotic.emotic,
        {DROP_TIES: emotic.EMOTIC26, FIRST_OF_TIES: emotic.EMOTIC26},
        "Annotations/Annotations.mat and emotic/{ade20k,emodb_small,framesdb,mscoco}/images/",
        "its authors, on request: github.com/rkosti/emotic (Kosti et al., TPAMI 2019)",
        terms="non-commercial research and education only",
    ),
    "vecbench": DataSet(
        "VECBench",
        vecbench.vecbench,
        vecbench.TASKS,
        "test_8k.jsonl (task, ground_truth, conversations) and the images that it names",
        "huggingface.co/datasets/wudq/VECBench (EmoCaliber, Wu et al., arXiv 2512.15528)",
    ),
    "mvei": DataSet(
        "MVEI",
        mvei.mvei,
        mvei.POLICIES,
        "MVEI_metadata.json and images/",
        "huggingface.co/datasets/wudq/MVEI (Wu et al., ICLR 2026, arXiv 2509.21950)",
    ),
    "eemo-bench": DataSet(
        "EEmo-Bench",
        eemobench.eemobench,
        {DROP_TIES: EKMAN7, FIRST_OF_TIES: EKMAN7},
        "files of questions (EEmo-Bench(pair).json, …) with image_url and image_label, and images/",
        "huggingface.co/datasets/Workerred/EEmo-Bench_pair (Gao et al., ACM MM 2025, arXiv 2504.16405)",
    ),
    "mer": DataSet(
        "MER2023, MER2024 or MER2025 Track 1",
        challenges.mer,
        {AS_GIVEN: challenges.MER6},
        f"one of {', '.join(challenges.MER_TABLES)} (name, discrete, valence), and clips in train/, video-labeled/ or "
        "video/",
        "huggingface.co/MERChallenge, on request (Lian et al., ACM MM 2023, arXiv 2504.19423)",
        terms="academic research only; no sample may be edited or put on the internet",
        clips=True,
    ),
    "dfew": DataSet(
        "DFEW",
        challenges.dfew,
        dict.fromkeys(challenges.DFEW_FOLDS, EKMAN7),
        "EmoLabel_DataSplit/{train,test}(single-labeled)/set_<1..5>.csv (video_name, label) and Clip/, or "
        "label/single_{train,test}set_<1..5>.csv and data/<clip>/*.jpg",
        "dfew-dataset.github.io, on request (Jiang et al., ACM MM 2020)",
        terms="research only; it may not be reproduced or passed on",
        clips=True,
    ),
    "clips": DataSet(
        "video clips",
        own.own_clips,
        {AS_GIVEN: None},
        "[train|val|test/]<label>/ with clips at any depth, or a .csv, .tsv, .jsonl, .parquet or .npz file with a "
        "column for the clip and one for the label",
        YOURS,
        clips=True,
    ),
    "folders": DataSet(
        "class folders",
        class_folders.own_folders,
        {AS_GIVEN: None},
        "[train|val|test/]<label>/ with images at any depth",
        YOURS,
    ),
    "table": DataSet(
        "a table",
        tables.table,
        {AS_GIVEN: None},
        "a .csv, .tsv, .jsonl or .parquet file with a column for the image and one for the label",
        YOURS,
    ),
    "hub": DataSet(
        "a data set of the hub",
        tables.hub,
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
