"""One row for several completions of a prompt, where no cache can be kept."""
