"""``knocktwice import``: people, devices and numbers from other products' exports."""

from __future__ import annotations

import csv
import dataclasses
import sqlite3
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path  # noqa: TC003 - typer reads it
from typing import TYPE_CHECKING, Annotated, Any

import typer
from sqlalchemy.exc import OperationalError

from knocktwice_shared.counted import many
from knocktwice_shared.errors import InvalidMessage
from knocktwice_shared.names import BATCH_LIMIT, VERSION, Task
from knocktwice_worker.audience import aliases, hwids
from knocktwice_worker.cli import export_rows, onesignal_export, pushwoosh_export
from knocktwice_worker.cli.export_rows import Export, Row, Said, Unfit
from knocktwice_worker.cli.output import AsJson, fail, out, print_json
from knocktwice_worker.cli.progress import progress
from knocktwice_worker.gateway import wording
from knocktwice_worker.services import Services, services

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

app = typer.Typer(name="import", help="People, devices and numbers from other products' exports.", no_args_is_help=True)

#: Refused rows that a report names; a file of them names all.
NAMED = 100
#: Those of them that the screen shows.
_SHOWN = 20
#: Reasons that a report counts; further ones are counted together.
_REASONS = 200


@dataclass(frozen=True, slots=True)
class Refused:
    """A row that was left out, by the line on which it ends, and why; nothing of it is quoted."""

    line: int
    problem: str


@dataclass(slots=True)
class Report:
    """The outcomes of the rows of a file: each is counted once.

    Attributes:
        taken: rows whose device or number is the person's now.
        person_only: rows of which only tags were taken: their device cannot be reached.
        merged: rows about a device or a number that stands further above; what is newer counts.
        refused: rows of which nothing was taken.
        reasons: how often each reason stands among ``person_only`` and ``refused``.
        named: the first of those, with their lines.
    """

    dry_run: bool
    rows: int = 0
    taken: int = 0
    person_only: int = 0
    merged: int = 0
    refused: int = 0
    reasons: dict[str, int] = field(default_factory=dict)
    named: list[Refused] = field(default_factory=list)


class _Seen:
    """The rows further above in a file, kept in a file without a name: memory does not grow with them."""

    def __init__(self) -> None:
        self._rows = sqlite3.connect("")
        self._rows.execute("CREATE TABLE seen (about TEXT PRIMARY KEY, number TEXT) WITHOUT ROWID")

    def close(self) -> None:
        """Forget it."""
        self._rows.close()

    def before(self, about: str, number: str) -> str | None:
        """Return the number that stood there about the same, and note this one if it is the first."""
        found = self._rows.execute("SELECT number FROM seen WHERE about = ?", (about,)).fetchone()
        if found is None:
            self._rows.execute("INSERT INTO seen VALUES (?, ?)", (about, number))
        return None if found is None else str(found[0])


class _Import:
    """One run over a file: takes what rows say to the tables, by pages, the same way as workers do.

    Args:
        here: the installation.
        export: whose rows they are.
        since: when rows count from that do not say it.
        refused: writes a line and a reason of each row that is not taken whole.
    """

    def __init__(
        self,
        here: Services,
        export: Export,
        since: datetime,
        report: Report,
        refused: Callable[[Sequence[Any]], object],
    ) -> None:
        self._here, self._export, self._report, self._write = here, export, report, refused
        self._now, self._since = datetime.now(UTC), since
        self._page: list[tuple[int, Said, bool]] = []
        self._changes = 0

    def take(self, row: Row, seen: _Seen) -> None:
        """Take one row."""
        self._report.rows += 1
        try:
            said = self._export.read(row, self._since)
            # In the one spelling of numbers from here on.
            said.changes = self._checked(said.changes)
            said.number = next((one["phone"] for one in said.changes if one["change"] == "bind_phone"), "")
            before = seen.before(said.about, said.number)
            if before is not None and before != said.number:
                problem = "is a second number of one person, who has one here; another row has the first"
                raise Unfit(f"{self._export.number}: {problem}")
        except Unfit as error:
            self._refuse(row.line, str(error))
            return
        except InvalidMessage as error:
            self._refuse(row.line, _plainly(error))
            return
        if self._changes + len(said.changes) > BATCH_LIMIT:
            self.flush()
        self._page.append((row.line, said, before is not None))
        self._changes += len(said.changes)

    def flush(self) -> None:
        """Write what waits. One row that the tables refuse is named, and the others are written without it."""
        page, self._page, self._changes = self._without_erased(), [], 0
        if not page:
            return
        try:
            self._commit([said for _, said, _ in page])
        except InvalidMessage as error:
            if len(page) == 1:
                self._refuse(page[0][0], _plainly(error))
                return
            for one in page:
                self._page = [one]
                self.flush()
            return
        for line, said, merged in page:
            self._count(line, said, merged=merged)

    def _without_erased(self) -> list[tuple[int, Said, bool]]:
        """Return what waits without people who were erased after that; an export must not bring them back."""
        if not self._page:
            return []
        with self._here.engine.connect() as conn:
            erased = self._here.erased.find(conn, {said.user for _, said, _ in self._page})
        for line, said, _ in self._page:
            if said.user in erased and said.at <= erased[said.user]:
                self._refuse(line, f"{self._export.user}: the person was erased after that")
        return [one for one in self._page if one[1].user not in erased or one[1].at > erased[one[1].user]]

    def _checked(self, changes: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        draft = wording.changes({"changes": changes}, self._here.settings.phone_rules, self._now)
        checked: list[dict[str, Any]] = draft.wire["changes"]
        return checked

    def _commit(self, page: Sequence[Said]) -> None:
        if self._report.dry_run:
            return
        # Aliases first: whoever finds a person by one finds the device a moment later.
        with self._here.engine.begin() as conn:
            aliases.put(conn, (one for said in page for one in said.aliases))
            hwids.name_new(conn, {said.hwid: (_registration(said), said.user) for said in page if said.hwid})
        changes = [change for said in page for change in said.changes]
        self._here.accepted[Task.UPDATE_AUDIENCE]([{"v": VERSION, "changes": changes}])

    def _count(self, line: int, said: Said, *, merged: bool) -> None:
        if said.problem:
            self._report.person_only += 1
            self._name(line, said.problem)
        elif merged:
            self._report.merged += 1
        else:
            self._report.taken += 1

    def _refuse(self, line: int, problem: str) -> None:
        self._report.refused += 1
        self._name(line, problem)

    def _name(self, line: int, problem: str) -> None:
        reasons = self._report.reasons
        reason = problem if problem in reasons or len(reasons) < _REASONS else "other reasons"
        reasons[reason] = reasons.get(reason, 0) + 1
        if len(self._report.named) < NAMED:
            self._report.named.append(Refused(line, problem))
        self._write((line, problem))


def _registration(said: Said) -> str:
    return next(str(one["registration"]) for one in said.changes if one["change"] == "register_device")


@contextmanager
def _lines(path: Path | None) -> Iterator[Callable[[Sequence[Any]], object]]:
    """Yield what writes a line and a reason to a file; without one it writes nothing."""
    if path is None:
        yield lambda _: None
        return
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("line", "problem"))
        yield writer.writerow


def _print(report: Report) -> None:
    would = "would be taken" if report.dry_run else "taken"
    out.print(
        f"{many(report.rows, 'row')}: {report.taken} {would}, {report.person_only} only with their tags, {report.merged} "
        f"merged with a row further above, {report.refused} refused",
        soft_wrap=True,
    )
    for reason, count in sorted(report.reasons.items(), key=lambda one: -one[1]):
        out.print(f"{count:>8}  {reason}", markup=False, soft_wrap=True)
    for one in report.named[:_SHOWN]:
        out.print(f"line {one.line}: {one.problem}", markup=False, soft_wrap=True)
    if sum(report.reasons.values()) > _SHOWN:
        out.print("--refused FILE names them all")


def _plainly(error: InvalidMessage) -> str:
    return f"{error.field.rpartition('].')[2]}: {error.problem}"


@app.command()
def onesignal(
    file: Annotated[Path, typer.Argument(help="CSV export of the users, also packed as .csv.gz.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would happen; change nothing.")] = False,
    refused: Annotated[
        Path | None, typer.Option(help="CSV file to write: line and reason of each row that is not taken whole.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Take people, devices, numbers and tags from OneSignal's CSV export; ids that were stored there work on.

    What a row says counts from when its person was last active: what the application has said since then stays, and
    the same file again changes nothing. Numbers that are unsubscribed there are opted out here. Every row is accounted
    for; the exit code is 1 if some were refused.

    Example: knocktwice import onesignal users.csv.gz --dry-run --json
    """
    _run(onesignal_export.EXPORT, file, datetime.now(UTC), refused, dry_run=dry_run, as_json=as_json)


@app.command()
def pushwoosh(
    file: Annotated[Path, typer.Argument(help="CSV export of a segment, unpacked or as .csv.gz.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would happen; change nothing.")] = False,
    refused: Annotated[
        Path | None, typer.Option(help="CSV file to write: line and reason of each row that is not taken whole.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Take people, devices, hwids, numbers and tags from Pushwoosh's CSV export of a segment.

    What a row says counts from when its device was opened last, or else from the time of the file: what the application
    has said since then stays, and the same file again changes nothing. Every row is accounted for; the exit code is 1
    if some were refused.

    Example: knocktwice import pushwoosh everybody.csv --dry-run --json
    """
    try:
        since = datetime.fromtimestamp(file.stat().st_mtime, UTC)
    except OSError as error:
        raise InvalidMessage("file", f"cannot be read: {error.strerror}") from None
    _run(pushwoosh_export.EXPORT, file, since, refused, dry_run=dry_run, as_json=as_json)


def _run(export: Export, file: Path, since: datetime, refused: Path | None, *, dry_run: bool, as_json: bool) -> None:
    here, report = services(), Report(dry_run=dry_run)
    with ExitStack() as stack:
        write: Callable[[Sequence[Any]], object] = stack.enter_context(_lines(refused))
        seen, run = stack.enter_context(closing(_Seen())), _Import(here, export, since, report, write)
        try:
            with export_rows.rows(file, export) as read, progress("importing") as bar:
                for row in read:
                    run.take(row, seen)
                    bar.update(done=report.rows, total=None, doing="importing")
                run.flush()
        except OperationalError:
            fail("the database does not answer; start the stack with 'knocktwice up' or set KNOCKTWICE_DATABASE_URL")
    if as_json:
        print_json(dataclasses.asdict(report))
    else:
        _print(report)
    if report.refused:
        raise typer.Exit(1)
