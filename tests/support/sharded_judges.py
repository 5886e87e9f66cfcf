"""One rank of `test_ddp.py`: a judge on a model whose weights are sharded over two processes (FSDP2).

Every forward of such a model waits for the other rank, so a rank that does one more or one less hangs.
Usage: sharded_judges.py CHECKPOINT IMAGE OUTPUT
"""

import json
import os
import sys
from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils import gather_object
from torch.distributed.fsdp import fully_shard

from emor3.judges.local import GenerateJudge, ScoreJudge
from emor3.judges.lockstep import InStepJudge
from emor3.method.labels import MIKELS8, LabelSet
from emor3.method.reflection import coherence_question, consistency_question
from emor3.method.types import Question
from emor3.models.checkpoints import load

state = PartialState(cpu=True)
assert state.num_processes == 2, "real processes, not one that was silently started alone"
rank = state.process_index
checkpoint, image, output = sys.argv[1:]
model, processor = load(checkpoint)
asked = [
    consistency_question((image,), "A dog."),
    consistency_question((image,), "Two cats in a long street."),
    coherence_question("A dog.", "Joy.", MIKELS8),
    coherence_question("A dog.", "Joy.", LabelSet("long", ("great joy", "great fear", "calm"))),
]
# Questions of each rank: unlike kinds and numbers, then none on one rank (all malformed), then none anywhere.
splits = [[asked[:1], asked[1:]], [asked, []], [[], []]]


def end_early(module: Any, args: Any, logits: Any) -> Any:
    """Rank 0 ends its replies at once, rank 1 never does."""
    bias = torch.zeros(logits.shape[-1])
    bias[processor.tokenizer.eos_token_id] = 100.0 if rank == 0 else -100.0
    return logits + bias


def answers(wrap: Any, questions: list[Question]) -> Any:
    """Probabilities of the scoring judge and texts of the generating one, by question."""
    score = wrap(ScoreJudge(model, processor)).answer(questions)
    hook = model.lm_head.register_forward_hook(end_early)
    generate = wrap(GenerateJudge(model, processor, max_new_tokens=4)).answer(questions)
    hook.remove()
    replies = zip(questions, score, generate, strict=True)
    return {question: [*scored.probabilities.values(), generated.text] for question, scored, generated in replies}


alone = answers(lambda judge: judge, asked)
for layer in [*model.model.visual.blocks, *model.model.language_model.layers, model]:
    fully_shard(layer)
rows = []
for split in splits:
    together = answers(lambda judge: InStepJudge(judge, gather_object), split[rank])
    rows.append([{"alone": alone[question], "together": together[question]} for question in split[rank]])
with open(f"{output}/rank{rank}.json", "w", encoding="utf-8") as file:
    json.dump({"world": state.num_processes, "splits": rows}, file)
state.wait_for_everyone()
os._exit(0)  # everything is written; torch's own threads abort about one exit in ten after raw fully_shard on gloo
