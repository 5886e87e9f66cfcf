"""People against the judge: a page on which they mark completions, their marks, and how far all agree."""
