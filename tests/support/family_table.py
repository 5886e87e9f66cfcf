"""The table of docs/models.md: what is declared here of each family, which `tests/models/test_families.py` measures.

`python tests/support/family_table.py` writes it anew.
"""

from dataclasses import dataclass

from emor3.stats.format import markdown_table
from places import ROOT

PAGE = ROOT / "docs" / "models.md"
BEGIN, END = "<!-- table of families: written by tests/support/family_table.py -->\n", "<!-- end of the table -->"
ONE_TILE = "if images are of one tile"
"""When a prompt is read once, in a family that lays the tiles of all images one after the other."""
NOT_THE_UPDATE = "but in the update"
"""When it is not, in a family whose layers overwrite their states."""


@dataclass(frozen=True)
class Family:
    """What is said of a family; its tiny checkpoint is of the same name (`architectures`)."""

    name: str
    models: str
    read_once: bool | str = True
    """Whether a prompt is read once for all its completions and questions, or when."""
    packed: bool = True
    """Whether completions share rows also where no cache can be kept."""
    encoded_once: bool = True
    """Whether frozen vision encodes an image once a step."""
    limited: bool = False
    """Whether `model.max_pixels` limits its images."""
    served: bool = False
    """Whether vLLM itself answered as transformers does (`benchmarks/vllm_families.py`)."""
    needs: tuple[str, ...] = ()
    """Packages that transformers needs beside emor3's own."""


FAMILIES = {
    "qwen2_vl": Family("Qwen2-VL", "Qwen2-VL-2B, 7B", limited=True, served=True),
    "qwen2_5_vl": Family("Qwen2.5-VL", "Qwen2.5-VL-3B, 7B (the paper's)", limited=True, served=True),
    "qwen3_vl": Family("Qwen3-VL", "Qwen3-VL-4B, 8B", limited=True, served=True),
    "qwen3_5": Family("Qwen3.5", "Qwen3.5-27B", read_once=NOT_THE_UPDATE, packed=False, limited=True),
    "idefics3": Family("Idefics 3", "SmolVLM-256M; Idefics3-8B-Llama3", limited=True, served=True),
    "smolvlm": Family("SmolVLM 2", "SmolVLM2-2.2B", limited=True, needs=("torchvision", "num2words")),
    "llava": Family("LLaVA", "llava-1.5-7b", served=True),
    "llava_next": Family("LLaVA-NeXT", "llava-v1.6-mistral-7b", encoded_once=False, served=True),
    "llava_onevision": Family(
        "LLaVA-OneVision", "llava-onevision-qwen2-7b-ov", read_once=False, packed=False, encoded_once=False, served=True
    ),
    "internvl": Family("InternVL 3", "InternVL3-1B-hf", read_once=ONE_TILE, limited=True, served=True),
    "gemma3": Family("Gemma 3", "gemma-3-4b-it"),
    "gemma4": Family("Gemma 4", "gemma-4-e2b-it", packed=False),
    "lfm2_vl": Family("LFM2-VL", "LFM2-VL-1.6B", read_once=False, packed=False, needs=("torchvision",)),
    "fast_vlm": Family("FastVLM", "FastVLM-0.5B, 7B", needs=("timm",)),
    "gemma3n": Family("Gemma 3n", "gemma-3n-E4B", packed=False, needs=("timm",)),
}
REFUSED = {"PaliGemma 2": "paligemma2-3b-mix-224"}
"""Families that are in transformers and do not work; the page says why."""
HEADER = ("family", "published models", "trains", "reads a prompt once", "packs rows", "encodes an image once")
HEADER += ("`model.max_pixels`", "as in vLLM", "needs")


def table() -> str:
    """The table in Markdown."""
    rows = []
    for f in FAMILIES.values():
        found = map(_said, (True, f.read_once, f.packed, f.encoded_once, f.limited))
        rows.append([f.name, f.models, *found, "yes" if f.served else "", ", ".join(f.needs)])
    rows += [[name, models, "no", *[""] * 6] for name, models in REFUSED.items()]
    return markdown_table(list(HEADER), rows)


def _said(fact: bool | str) -> str:
    return fact if isinstance(fact, str) else "yes" if fact else "no"


def with_table(page: str) -> str:
    """The page with the table as it is declared now."""
    before, rest = page.split(BEGIN)
    return f"{before}{BEGIN}\n{table()}\n\n{END}{rest.split(END)[1]}"


if __name__ == "__main__":
    PAGE.write_text(with_table(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
