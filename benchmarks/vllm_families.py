"""Every family's tiny checkpoint in real vLLM on a CPU: greedy answers and a judge's probabilities, and transformers'.

    PYTHONPATH=tests/support:scripts python benchmarks/vllm_families.py FOLDER --write      # here
    VLLM_CPU_KVCACHE_SPACE=1 OMP_NUM_THREADS=1 python benchmarks/vllm_families.py FOLDER    # where vllm_cpu.py runs

Weights are random, with heads of 32 numbers, the smallest that vLLM's attention takes. Greedy answers part only where
two tokens have nearly equal scores (`is_tie`). Each family runs in a process of its own; one that vLLM does not serve
is a line with its reason.
"""

import argparse
import subprocess
import sys
from pathlib import Path

from PIL import Image
from safetensors.torch import load_file, save_file

from emor3.method.labels import LabelSet
from emor3.method.reflection import coherence_question, consistency_question
from emor3.models.checkpoints import load
from emor3.models.engines.batches import Decoding
from emor3.models.engines.local import LocalEngine

HEAD, SECTIONS = 32, [8, 4, 4]
"""Numbers of a head, and how many pairs of them tell time, height and width (Qwen-VL)."""
WORDS = ("What is felt?", "Which of these feelings would it evoke, and why? Think step by step.")
TOKENS = 16


def name_as_published(path: Path) -> None:
    """Give weights of LLaVA's vision tower the names of published files, which transformers keeps once it has them."""
    weights = load_file(path)
    save_file(
        {name.replace("vision_tower.", "vision_tower.vision_model."): weights[name] for name in weights},
        path,
        metadata={"format": "pt"},
    )


def write_all(folder: Path) -> None:
    """Write the checkpoints of all families that the tests have, and pictures."""
    import family_parts  # of the tests

    one_head = {"num_attention_heads": 1, "num_key_value_heads": 1, "head_dim": HEAD}
    family_parts.TEXT.update(one_head)  # before the families' own modules read it
    import further_architectures

    further_architectures.ROPE["mrope_section"] = SECTIONS
    import architectures

    folder.mkdir(parents=True)
    for name in architectures.HERE:
        architectures.write_checkpoint(name, folder / name)
        if name.startswith("llava"):
            name_as_published(folder / name / "model.safetensors")
    for place, size in enumerate([(64, 64), (96, 64), (64, 128), (128, 128)]):
        Image.effect_noise(size, 80).convert("RGB").save(folder / f"{place}.png")


def compare(checkpoint: Path) -> str:
    """What came out for a family, on one line."""
    from emor3.judges.local import ScoreJudge
    from emor3.judges.vllm import EngineJudge
    from emor3.models.engines.vllm import VllmEngine
    from vllm_cpu import is_tie

    paths = sorted(map(str, checkpoint.parent.glob("*.png")))
    requests = [((path,), text) for path in paths for text in WORDS]
    local, engine = LocalEngine(*load(str(checkpoint))), VllmEngine(str(checkpoint))
    expected, found = (
        [text for (text,) in one.complete(requests, Decoding(max_new_tokens=TOKENS))] for one in (local, engine)
    )
    other = [place for place, text in enumerate(found) if text != expected[place]]
    ties = sum(is_tie(local, requests[place], found[place], expected[place]) for place in other)
    asked = [consistency_question((path,), "A dog on a beach.") for path in paths]
    asked += [coherence_question("A dog on a beach.", "One would smile.", LabelSet("two", ("fear", "awe")))]
    replies = [judge.answer(asked) for judge in (EngineJudge(engine), ScoreJudge(local.model, local.processor))]
    apart = max(
        abs(share - (b.probabilities or {})[label])
        for a, b in zip(*replies, strict=True)
        for label, share in (a.probabilities or {}).items()
    )
    return (
        f"{checkpoint.name}: {len(found) - len(other)} of {len(found)} greedy answers as transformers', {ties} of the "
        f"others are ties; probabilities of {len(asked)} verdicts apart by at most {apart:.1e}"
    )


def main() -> None:
    """Write the checkpoints, or compare the families that are named, or all, each in a process."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--family", help="only this one, in this process")
    options = parser.parse_args()
    if options.write:
        write_all(options.folder)
    elif options.family:
        print(compare(options.folder / options.family), flush=True)
    else:
        for checkpoint in sorted(path for path in options.folder.iterdir() if path.is_dir()):
            command = [sys.executable, __file__, str(options.folder), "--family", checkpoint.name]
            ran = subprocess.run(command, capture_output=True, text=True, check=False)
            lines = (ran.stdout if ran.returncode == 0 else ran.stderr).splitlines()
            said = [line for line in lines if line.startswith(f"{checkpoint.name}:")]
            print(said[-1] if said else f"{checkpoint.name}: {lines[-1] if lines else ran.returncode}", flush=True)


if __name__ == "__main__":
    main()
