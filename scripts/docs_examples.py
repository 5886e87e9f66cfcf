"""For the site (mkdocs.yml): the worked examples of docstrings as blocks of code, not as quotations."""

import re

import griffe

EXAMPLE = re.compile(r"^>>> .*(?:\n(?!\s*$).+)*", re.MULTILINE)
"""From a prompt to the next blank line, as doctest reads it."""


class Examples(griffe.Extension):
    """Fences the examples of every docstring that is shown."""

    def on_instance(self, *, obj: griffe.Object, **_: object) -> None:
        """Rewrite the docstring of one object."""
        if obj.docstring:
            obj.docstring.value = EXAMPLE.sub(lambda found: f"```pycon\n{found[0]}\n```", obj.docstring.value)
