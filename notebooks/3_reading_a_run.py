# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Reading a run with pandas
#
# A run writes down everything: a row a step, and every completion with its reasoning, the questions of the judge, their
# answers and the parts of its reward. `emor3.read_table` gives each record as a table. The columns are explained in
# `docs/reference.md`.

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
# ## A run to read
#
# Four small steps of the model that comes with emor3. **If you have a run, put its folder here instead:**
# `run = "runs/my_photos"`.

# %%
recipe = emor3.load_recipe(
    "quickstart_easy",
    [
        f"output_dir={work / 'run'}",
        "grpo.max_steps=4",
        "grpo.per_device_train_batch_size=16",
        "grpo.num_generations=4",
        "judge.calibration=8",
    ],
)
run = emor3.train(recipe)

# %% [markdown]
# ## Steps
#
# `metrics` has a row a step: the mean reward and its parts, the length of completions, the distance from the start
# model (`kl`) and what TRL logs.

# %%
metrics = emor3.read_table(run, "metrics")
metrics[["step", "reward", "rewards/accuracy/mean", "rewards/format/mean", "completions/mean_length"]].round(2)

# %% [markdown]
# ## Completions
#
# `rollouts` has a row a completion. Blocks inside it are columns with dots in their names.

# %%
rollouts = emor3.read_table(run, "rollouts")
rollouts[["step", "group", "label", "thought.trigger", "thought.answer", "reward"]].head(4)

# %% [markdown]
# What is each part worth? `parts` are raw, from 0 to 1; the reward is their weighted sum.

# %%
parts = [column for column in rollouts if column.startswith("parts.")]
rollouts.groupby("step")[[*parts, "reward"]].mean().round(2)

# %% [markdown]
# ## Where there is nothing to learn
#
# GRPO compares the completions of one prompt. If all of a group earn the same, the group teaches nothing: no completion
# is better than another. Many such groups mean that the task is too easy or too hard, or that the reward is too coarse.

# %%
spread = rollouts.groupby(["step", "group"])["reward"].agg(lambda rewards: rewards.max() - rewards.min())
print(f"{(spread == 0).mean():.0%} of {len(spread)} groups have one reward for all")

# %% [markdown]
# ## What the judge says
#
# `supported` and `refuted` are verdicts; `not_asked` means that the completion had no such step to ask about.

# %%
rollouts["right"] = rollouts["parts.accuracy"] == 1
rollouts.groupby("right")["reflection.coherence.verdict"].value_counts().unstack(fill_value=0)

# %% [markdown]
# One refuted description, with the question as the judge read it:

# %%
refuted = rollouts[rollouts["reflection.consistency.verdict"] == "refuted"]
for row in refuted.head(1).to_dict("records"):
    print("step 1:  ", row["thought.trigger"])
    print("question:", row["reflection.consistency.question"])
    print("reply:   ", row["reflection.consistency.reply"])

# %% [markdown]
# ## An evaluation
#
# `predictions` has a row a sample, `figures` a row a figure with its 95% interval and n.

# %%
policy = emor3.load_policy(str(run))
emor3.evaluate(policy, "embedded:scenes8", work / "evaluation", limit=32)
predictions = emor3.read_table(work / "evaluation", "predictions")
predictions.groupby(["label", "predicted"]).size().unstack(fill_value=0)

# %% [markdown]
# Which labels are confused is on the rows and columns of this table: rows are true, columns answered. The same as a
# picture, with curves, tests and a gallery: `emor3 report RUN EVALUATION`.

# %%
figures = emor3.read_table(work / "evaluation", "figures").set_index("figure")
figures.loc[["accuracy", "balanced_accuracy", "consistency", "coherence"], ["value", "low", "high", "n"]].round(2)
