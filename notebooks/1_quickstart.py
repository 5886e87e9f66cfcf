# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Quickstart: a model that reasons about emotion
#
# A vision-language model looks at a picture, thinks in three steps (what triggers an emotion, how a viewer would feel,
# positive or negative and how aroused) and names one label. Here a tiny model that comes with emor3 does so, is trained
# for a few steps, and is measured before and after. Nothing is downloaded; two CPU cores are enough.

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

from PIL import Image

import emor3

work = Path(tempfile.mkdtemp(prefix="emor3-"))  # everything that this notebook writes

# %% [markdown]
# ## A picture and what the model thinks of it
#
# `embedded` is the model, `embedded:scenes8` its world: drawn scenes with eight emotions, drawn when they are first
# needed. Both take a folder, a run or a name on the hub as well.

# %%
policy = emor3.load_policy("embedded")
samples = emor3.load_samples("embedded:scenes8", split="test")
sample = samples[0]

Image.open(sample.image).resize((192, 192), Image.Resampling.NEAREST)

# %%
_, outcome = next(emor3.predict(policy, sample.image))
thought, reflection = outcome.prediction.thought, outcome.prediction.reflection
print("1. trigger:   ", thought.trigger)
print("2. feeling:   ", thought.feeling)
print("3. conclusion:", thought.conclusion)
print("label:        ", thought.answer, "| viewers say:", sample.label)

# %% [markdown]
# Then the model is asked back, in a fresh context: does step 1 describe the picture (consistency), and which emotion do
# steps 1 and 2 convey, without the picture (coherence)? Both answers are part of the reward that it is trained with.

# %%
print("consistency:", reflection.consistency.verdict)
print("coherence:  ", reflection.coherence.verdict)

# %% [markdown]
# ## Measure it
#
# On 32 test pictures, so that it takes seconds; the intervals (95%) say how little 32 pictures tell.

# %%
LIMIT = 32
SHOWN = ["accuracy", "format", "consistency", "coherence"]


def figures(folder):
    """Value and interval of a few figures, as rounded percentages."""
    table = emor3.read_table(folder, "figures").set_index("figure")
    return (100 * table.loc[SHOWN, ["value", "low", "high"]]).round(1)


emor3.evaluate(policy, "embedded:scenes8", work / "before", limit=LIMIT)
figures(work / "before")

# %% [markdown]
# ## Train it
#
# `quickstart_easy` is a recipe that comes with emor3. A few of its settings are made smaller here: as it stands (130
# steps, 8 pictures a step, 8 completions of each) it takes about two minutes on two cores, and accuracy rises from 47%
# to 82%. **Set `STEPS = 130` and leave out the last three lines to see that.** Three small steps change little.

# %%
STEPS = 3
recipe = emor3.load_recipe(
    "quickstart_easy",
    [
        f"output_dir={work / 'run'}",
        f"grpo.max_steps={STEPS}",
        "grpo.per_device_train_batch_size=16",
        "grpo.num_generations=4",
        "judge.calibration=8",
    ],
)
run = emor3.train(recipe)

# %% [markdown]
# ## Measure it again
#
# Same pictures, same judge: the model that training started from.

# %%
trained = emor3.load_policy(str(run))
emor3.evaluate(trained, "embedded:scenes8", work / "after", limit=LIMIT)
figures(work / "before").join(figures(work / "after"), lsuffix=" before", rsuffix=" after")

# %% [markdown]
# ## What next
#
# - Your own pictures and labels: `2_your_images.ipynb`.
# - What a run writes, read with pandas: `3_reading_a_run.ipynb`.
# - A judge and a part of the reward of your own: `4_your_own_judge.ipynb`.
# - On the command line: `emor3 quickstart` does all of this with paired tests, `emor3 report` puts it on one page.
