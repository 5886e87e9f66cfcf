"""Dry groups are replaced by live ones on other prompts, rows stay whole, and retries are capped."""

from typing import Any

import torch

from emor3.training.dynamic_sampling import refill, replace_rows

PAD = 9


def scored(prompts: Any, completions: list[list[int]], first_patch: int = 0) -> dict[str, Any]:
    """A batch as TRL scores it: row i has 1 + i % 2 image patches, filled with a number of its own."""
    rows = len(prompts)
    patches = [1 + i % 2 for i in range(rows)]
    numbers = torch.cat([torch.full((count, 3), float(first_patch + i)) for i, count in enumerate(patches)])
    return {
        "prompt_ids": torch.tensor(prompts),
        "prompt_mask": torch.ones_like(torch.tensor(prompts)),
        "completion_ids": torch.tensor(completions),
        "completion_mask": torch.ones_like(torch.tensor(completions)),
        "mm_token_type_ids": torch.ones(rows, len(prompts[0]) + len(completions[0]), dtype=torch.long),
        "advantages": torch.arange(rows) + first_patch,
        "num_items_in_batch": torch.tensor(5),
        "pixel_values": numbers,
        "image_grid_thw": torch.tensor([[1, 1, count] for count in patches]),
        "num_images": [1] * rows,
    }


def test_a_replaced_row_brings_its_prompt_completion_and_image_along() -> None:
    batch = scored([[1, 2], [3, 4]], [[5], [6]])
    fresh = scored([[1, 1, 1], [2, 2, 2]], [[7, 7], [8, 8]], first_patch=10)
    merged = replace_rows(batch, fresh, [0], [1], PAD)
    assert merged["prompt_ids"].tolist() == [[2, 2, 2], [PAD, 3, 4]]  # prompts are padded on the left
    assert merged["prompt_mask"].tolist() == [[1, 1, 1], [0, 1, 1]]
    assert merged["completion_ids"].tolist() == [[8, 8], [6, PAD]]  # completions on the right
    assert merged["completion_mask"].tolist() == [[1, 1], [1, 0]]
    assert merged["mm_token_type_ids"].tolist() == [[1] * 5, [0, 1, 1, 1, 0]]
    assert merged["advantages"].tolist() == [11, 1]
    assert merged["pixel_values"][:, 0].tolist() == [11, 11, 1, 1]  # the new row's two patches, the old row's two
    assert merged["num_items_in_batch"] == 5


def test_rows_with_more_tiles_than_the_batch_has_may_take_a_place_in_it() -> None:
    def tiled(tiles: int, fill: float) -> dict[str, Any]:
        shown = torch.ones(2, tiles, 1, 1)
        batch = scored([[1], [2]], [[3], [4]])
        del batch["image_grid_thw"]
        return {**batch, "pixel_values": fill * shown[:, :, None], "pixel_attention_mask": shown}

    merged = replace_rows(tiled(1, 0.5), tiled(3, 0.25), [1], [0], pad_id=9)
    assert merged["pixel_values"].flatten(1).tolist() == [[0.5, 0, 0], [0.25, 0.25, 0.25]]
    assert merged["pixel_attention_mask"].flatten(1).tolist() == [[1, 0, 0], [1, 1, 1]]


def test_one_column_for_all_tokens_of_a_completion_stays_one() -> None:
    # TRL's importance ratios under vLLM: a factor of the loss that broadcasts over the tokens.
    batch = {**scored([[1], [3]], [[5, 5], [6, 6]]), "importance_sampling_ratio": torch.tensor([[0.1], [0.2]])}
    fresh = {**scored([[1], [2]], [[7] * 3, [8] * 3]), "importance_sampling_ratio": torch.tensor([[0.3], [0.4]])}
    merged = replace_rows(batch, fresh, [0], [1], PAD)
    torch.testing.assert_close(merged["importance_sampling_ratio"], torch.tensor([[0.4], [0.2]]))
    assert merged["completion_ids"].tolist() == [[8, 8, 8], [6, 6, PAD]]


def test_dry_groups_are_replaced_until_none_is_left_and_no_further() -> None:
    batch = scored([[1], [1], [2], [2]], [[5], [5], [5], [5]])
    dry = torch.tensor([True, True, True, True])
    drawn = []

    def draw(attempt: Any) -> tuple[Any, ...]:
        drawn.append(attempt)  # the first draw has one live group of two, the second two
        return scored([[3], [3], [4], [4]], [[6]] * 4, 10), torch.tensor([True, True, attempt == 0, attempt == 0])

    merged, attempts = refill(batch, dry, PAD, 5, draw, torch.any)
    assert (drawn, attempts) == ([0, 1, 2], 3)  # nothing, then one group, then the other
    assert merged["prompt_ids"].tolist() == [[4]] * 4


def test_retries_are_capped_and_the_dry_groups_stay() -> None:
    batch = scored([[1], [1]], [[5], [5]])
    all_dry = torch.tensor([True, True])
    merged, attempts = refill(batch, all_dry, PAD, 2, lambda attempt: (batch, all_dry), torch.any)
    assert attempts == 2
    assert merged["prompt_ids"].tolist() == [[1], [1]]
