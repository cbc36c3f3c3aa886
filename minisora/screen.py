"""What goes to a terminal: styled by us alone. A path, a caption, a prompt or a name is never markup there.

Rich reads `[red]` in a string as a style, `[/b]` as an error and `:dog:` as a picture, and terminals obey escape
characters, wherever these came from. So everything is printed by `say`, and tables are of the class `Table` here:
both take strings as they are. A test walks the package for prints that do not.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.style import StyleType
from rich.table import Table as RichTable
from rich.text import Text

# What a long job calls as it gets on: (done, in all).
Progress = Callable[[int, int], None]

_CONTROLS = {code: repr(chr(code))[1:-1] for code in (*range(0x20), *range(0x7F, 0xA0))}


def plain(text: str) -> str:
    r"""One line that every terminal and every UTF-8 file takes and none obeys.

    Control characters become their escapes, such as `\x1b` and `\n`. A byte of a file name that is not UTF-8,
    which Python keeps as a lone surrogate, becomes `\udce9` for E9: the same letters as in JSON, where they are
    read back as that byte.
    """
    return text.translate(_CONTROLS).encode("utf-8", "backslashreplace").decode()


def say(console: Console, *parts: str | tuple[str, str], style: str = "") -> None:
    """Print a line that is not wrapped: strings as they are, and (string, style) pairs in their style.

    Args:
        console: where.
        parts: of the line, one after another.
        style: of the whole line.
    """
    texts = [plain(part) if isinstance(part, str) else (plain(part[0]), part[1]) for part in parts]
    console.print(Text.assemble(*texts, style=style), soft_wrap=True)


@contextmanager
def counting(console: Console, what: str) -> Iterator[Progress]:
    """Show how far a long job got: a bar on a terminal, nothing elsewhere.

    Args:
        console: where.
        what: the job, such as "scanning".
    """
    # Here, because only long jobs need it.
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn())
    with Bar(
        *columns, TimeRemainingColumn(), console=console, transient=True, disable=not console.is_terminal
    ) as bar:
        task = bar.add_task(plain(what), total=None)

        def show(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total)

        yield show


class Table(RichTable):
    """A rich table whose title, caption, headers and cells, where given as strings, are shown as they are."""

    def add_column(self, header: RenderableType = "", *arguments: Any, **options: Any) -> None:
        """As rich's."""
        super().add_column(_shown(header), *arguments, **options)

    def add_row(self, *cells: RenderableType | None, **options: Any) -> None:
        """As rich's."""
        super().add_row(*(None if cell is None else _shown(cell) for cell in cells), **options)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        if isinstance(self.title, str):
            self.title = _shown(self.title, self.title_style or "table.title")
        if isinstance(self.caption, str):
            self.caption = _shown(self.caption, self.caption_style or "table.caption")
        yield from super().__rich_console__(console, options)


def _shown(content: Any, style: StyleType = "") -> Any:
    """A string as text, of several lines if it has them; anything else as it is."""
    if not isinstance(content, str):
        return content
    return Text("\n".join(plain(line) for line in content.split("\n")), style)
