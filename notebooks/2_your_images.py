# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Your own images
#
# From a folder of labelled pictures to a trained model. `%run -m emor3 …` is the command `emor3 …` of a terminal, in
# the notebook's own process. The pictures here are made on the spot and stand for yours; the tiny model of the package
# takes the place of one from the hub. It has only ever seen drawings: its labels of photographs are near chance, so
# this shows the way, not a result.

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
import os
import tempfile
from pathlib import Path

from PIL import Image, ImageDraw

import emor3

os.chdir(tempfile.mkdtemp(prefix="emor3-"))  # everything that this notebook reads and writes

# %% [markdown]
# ## 1. One folder for each label
#
# Put your own here instead: `my_photos/LABEL/anything.jpg`, on Colab by the folder symbol on the left. A table with a
# column for the image and one for the label does as well.

# %%
for label, sky, ground in (("calm", "#a8c8e8", "#6a9a6a"), ("tense", "#401818", "#181018")):
    Path("my_photos", label).mkdir(parents=True)
    for number in range(12):
        picture = Image.effect_noise((96, 96), 20 + number).convert("RGB")
        drawing = ImageDraw.Draw(picture)
        drawing.rectangle((0, 0, 96, 30 + 2 * number), fill=sky)
        drawing.rectangle((0, 60 + number, 96, 96), fill=ground)
        picture.save(f"my_photos/{label}/{number}.png")

# %% [markdown]
# ## 2. A recipe
#
# `emor3 init` finds out how your images lie, holds out a part for testing, and writes a recipe with comments. Without
# `--model` it takes the largest model that fits this machine.

# %%
# %run -m emor3 init my_photos --model embedded

# %%
print(Path("my_photos.yaml").read_text())

# %% [markdown]
# ## 3. Check the folder
#
# Unreadable images, stray labels, near copies across splits: what would break training, or flatter the result.

# %%
# %run -m emor3 data check data/my_photos --recipe my_photos.yaml

# %% [markdown]
# ## 4. Train
#
# On the command line this is `emor3 train my_photos.yaml`. From Python any setting of the recipe can be replaced; the
# lines below make it a matter of seconds. **Leave them out for your own images.**

# %%
recipe = emor3.load_recipe(
    "my_photos.yaml",
    [
        "grpo.max_steps=2",
        "grpo.num_generations=4",
        "grpo.per_device_train_batch_size=8",
        "grpo.max_completion_length=64",
        "judge.calibration=4",
    ],
)
run = emor3.train(recipe)

# %% [markdown]
# ## 5. Measure and look
#
# On the test pictures, none of which was trained on. Compare accuracy with what the commonest label alone would reach.

# %%
policy = emor3.load_policy(str(run))
(evaluation,) = emor3.evaluate(policy, "data/my_photos", "runs/evaluation")
print(f"always the commonest label: {evaluation.majority['accuracy'].value:.0%} right")
figures = emor3.read_table("runs/evaluation", "figures").set_index("figure")
figures.loc[["accuracy", "format"], ["value", "low", "high", "n"]].round(2)

# %%
picture, outcome = next(emor3.predict(policy, "my_photos/calm/3.png"))
print(outcome.prediction.completion)
print(
    "label:", outcome.prediction.predicted, "| step 1 describes it:", outcome.prediction.reflection.consistency.verdict
)

# %% [markdown]
# On the command line: `emor3 predict --model runs/my_photos/final photo.jpg`, for a folder
# `emor3 predict --model runs/my_photos/final photos --json`.
