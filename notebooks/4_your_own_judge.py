# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Your own judge and part of the reward
#
# Two questions about a completion's reasoning go to a judge, and what it says is paid. Here the judge is a class of
# yours, first on rows of your own, then in training, and a function of yours becomes one more part of the reward.

# %% [markdown]
# The next cell installs emor3 where it is missing, as on Colab: put in the address that you cloned it from. It takes a
# minute or two there, and does nothing where emor3 is installed.

# %%
import subprocess
import sys
from importlib.util import find_spec

REPOSITORY = "https://github.com/OWNER/emor3"
if find_spec("emor3") is None:
    assert "OWNER" not in REPOSITORY, "put in the address that you cloned emor3 from"
    subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", f"emor3 @ git+{REPOSITORY}"], check=True)

# %%
import tempfile
from pathlib import Path

import emor3

work = Path(tempfile.mkdtemp(prefix="emor3-"))  # everything that this notebook writes

# %% [markdown]
# ## A judge
#
# Any object with `answer(questions)` that gives one `Reply` for each `Question`, in order. A question has an `aspect`:
#
# - `consistency`, with `images`: does this text describe them? `candidates` are Yes and No.
# - `coherence`, without images: which emotion do the two steps convey? `candidates` are the labels.
#
# Yours would ask a server or another model. This one reads words, so that one sees what it does.

# %%
HINTS = {"fear": ["tense", "dread", "cold"], "contentment": ["calm", "ease", "warm"]}


class Words:
    """Believes every description, and reads the label whose words stand in the question."""

    def answer(self, questions):
        return [self.reply(question) for question in questions]

    def reply(self, question):
        if question.images:
            return emor3.Reply("Yes")
        for label, words in HINTS.items():
            if label in question.candidates and any(word in question.text for word in words):
                return emor3.Reply(label)
        return emor3.Reply(question.candidates[0])


# %% [markdown]
# ## Score completions
#
# Rows and completions go in, the parts of the reward come out, by the functions of training. The completions may come
# from anywhere.

# %%
row = {"label": "fear", "labels": ["contentment", "fear"], "images": ["fog.jpg"]}
completions = [
    r"<step1>a road in fog</step1><step2>tense, on guard</step2><step3>negative, high</step3>\boxed{fear}",
    r"<step1>a road in fog</step1><step2>calm, at ease</step2><step3>positive, low</step3>\boxed{contentment}",
    r"\boxed{fear}",
]
settings = emor3.RewardSettings(contrastive=0)  # ask about the own image only, as the paper does
for rollout in emor3.score_rows([row] * 3, completions, Words(), settings):
    print(round(rollout.reward.total, 2), rollout.reward.parts)

# %% [markdown]
# The second one is wrong, and earns consistency alone: the judge believes its description but reads the label it
# answered, which is not the true one. The third is right, but shows no reasoning that could earn anything.
#
# A judge that pays every description is easy to please: by default a description must also *not* fit two other images
# (`reward.contrastive`), which this one would say it does.
#
# ## A part of the reward
#
# A function from rollouts to one number for each, from 0 to 1. A rollout has `completion`, `thought` (the steps),
# `sample`, `reflection` (what the judge found) and `reward` (the other parts).


# %%
def brevity(rollouts):
    """1 for at most 20 words, less for more."""
    return [min(1.0, 20 / max(1, len(rollout.completion.split()))) for rollout in rollouts]


# %% [markdown]
# ## Train with both
#
# The recipe names the part with its weight, which is taken from accuracy's, and the call hands the function over. The
# run records the digest of the function's source, and is resumed with the same only.
# On the command line it is `emor3 train RECIPE --allow-code my_rewards:brevity`, with the function in `my_rewards.py`.

# %%
recipe = emor3.load_recipe(
    "quickstart_easy",
    [
        f"output_dir={work / 'run'}",
        "reward.own.brevity={function: 'my_rewards:brevity', weight: 0.1}",
        "grpo.max_steps=3",
        "grpo.per_device_train_batch_size=16",
        "grpo.num_generations=4",
        "judge.calibration=0",
    ],
)
run = emor3.train(recipe, own={"brevity": brevity}, judge=Words())

# %% [markdown]
# Your part stands beside the others in every record:

# %%
rollouts = emor3.read_table(run, "rollouts")
rollouts.groupby("step")[[column for column in rollouts if column.startswith("parts.")]].mean().round(2)

# %% [markdown]
# Before you train for long, look at what your judge and your part pay: read some of the highest and lowest completions.

# %%
for row in rollouts.sort_values("reward").iloc[[0, -1]].to_dict("records"):
    print(f"{row['reward']:.2f}  brevity {row['parts.brevity']:.2f}  {row['completion']}\n")

# %% [markdown]
# ## What next
#
# All names, what a judge may say when it fails, and TRL trainers of your own: `docs/api.md`.
