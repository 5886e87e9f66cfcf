"""Our tasks in harnesses of others: their prompts, parser and figures are ours, and their answers come back as ours."""
