"""The reproduction report: everything that a reader needs to believe a table, as Markdown."""
