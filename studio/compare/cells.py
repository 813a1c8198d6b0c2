"""What comes of a grid: a comparison and its cells, each with its run, its seconds and its scores, or its error.

Knows what the record says of them. Refuses to know how they are made, scored and kept.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

from studio.errors import ErrorRecord, RequestError
from studio.records.codec import Score
from studio.requests.generation import RecordedRequest

CellState = Literal["waiting", "running", "complete", "failed"]
ComparisonState = Literal["running", "complete", "stopped"]

FULL = "full"
"""The method that changes nothing: the reference of its group."""


@dataclass(frozen=True, kw_only=True)
class Seconds:
    """What a run took, device-synchronised. Loading is left out, for it depends on what was done before; so are the
    previews between the steps, which only whoever watches needs."""

    encoding: float
    """The text encoders."""
    denoising: float
    """All steps: the transformer's passes and the scheduler."""
    decoding: float
    """The autoencoder, latents to frames."""
    whole: float
    """These three and writing the file."""


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One clip of a grid: what was asked, the run that answers, what it scored, or what went wrong."""

    number: int
    """From 0, in the order in which they are made."""
    group: int
    """Cells of one group share prompt, seed and axes."""
    repeat: int
    reference: int
    """Number of the uncached cell of the same group and repeat; its own, where it is that cell."""
    method: str
    """`Method.text`."""
    request: RecordedRequest
    state: CellState = "waiting"
    run_id: str | None = None
    reused: bool = False
    """The run was there before the comparison, and was timed then."""
    cold: bool = False
    """The run loaded the model first: its seconds carry one-off costs."""
    seconds: Seconds | None = None
    computed_share: float | None = None
    """Share of the block passes that ran; None where no trace was kept."""
    scores: dict[str, Score] = field(default_factory=dict)
    """By metric; may be infinite or NaN."""
    frame_psnr: tuple[Score, ...] = ()
    """dB, one for each frame, against the reference's."""
    notices: tuple[str, ...] = ()
    """What a reader of the figures should know, such as why a score is missing."""
    error: ErrorRecord | None = None
    """`StudioError.to_json`."""

    @property
    def is_reference(self) -> bool:
        return self.number == self.reference

    @property
    def ended(self) -> bool:
        return self.state in ("complete", "failed")


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """A reference and cells, for each group."""

    id: str
    owner: str
    created: str
    """ISO 8601, UTC."""
    state: ComparisonState = "running"
    methods: tuple[str, ...]
    """`Method.text` in the order of the grid, the reference first."""
    cells: tuple[Cell, ...]

    def cell(self, number: object) -> Cell:
        """The cell of that number.

        Raises:
            RequestError: there is none.
        """
        if not (isinstance(number, int) and 0 <= number < len(self.cells)):
            raise RequestError(f"There is no cell {str(number)[:20]}.", field="cell", value=number)
        return self.cells[number]

    def with_cell(self, cell: Cell) -> Comparison:
        return replace(self, cells=(*self.cells[: cell.number], cell, *self.cells[cell.number + 1 :]))

    @property
    def next_cell(self) -> Cell | None:
        return next((cell for cell in self.cells if cell.state == "waiting"), None)

    @property
    def ended(self) -> int:
        """How many cells have."""
        return sum(cell.ended for cell in self.cells)
