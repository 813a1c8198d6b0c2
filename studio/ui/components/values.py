"""What each component is given to draw: plain data that JSON can hold, whose every text is text and never markup.

Knows the values by their shape, so that whoever makes one is checked. Refuses to know how they are drawn, and Gradio.
"""

from __future__ import annotations

from typing import Literal, NotRequired, TypedDict

Figure = float | Literal["inf"] | None
"""JSON has no infinity and no NaN: "inf" is a perfect one, None is none."""


class Message(TypedDict):
    """One message in place, beside what it is about; the tone is also said by a sign, not by colour alone."""

    tone: Literal["quiet", "good", "warn", "error"]
    words: str
    field: str  # name of the setting at fault, as the form labels it; empty where there is none
    link: NotRequired[str]  # an address of the web that the words end in
    share: NotRequired[float]  # of 1, how much is done: drawn as a bar


class Masthead(TypedDict):
    """The line at the top: the studio's name, the machine it runs on, and what the worker process is doing."""

    machine: str
    worker: NotRequired[str]
    worker_state: NotRequired[Literal["starting", "ready", "busy", "paused", "dead"]]


class Fact(TypedDict):
    name: str
    value: str
    strong: NotRequired[bool]


class Facts(TypedDict):
    """A short table of facts: names and values, some of them more important than the others."""

    title: str
    note: str  # a sentence under the title
    rows: list[Fact]
    notes: list[str]  # sentences under the table


class PromptIdeas(TypedDict):
    """Prompts worth trying, as buttons. A click sends `idea` with the {index} of the prompt, not its text."""

    prompts: list[str]


class Stage(TypedDict):
    name: str
    seconds: float | None  # None for the one under way


class LiveStatus(TypedDict):
    """The live line: what is being done now, for how long, how long it will still take, and the picture so far."""

    state: str  # "idle", "starting", or a job's
    headline: str  # one short sentence
    detail: str  # what else a person should know
    prompt: str
    stages: list[Stage]  # those begun, in order
    notices: list[str]
    elapsed: NotRequired[float | None]  # seconds since the job was started, when this value was made
    eta: NotRequired[float | None]  # seconds until the clip is there
    preview: NotRequired[str]  # a `data:` address of a JPEG, or empty
    preview_step: NotRequired[int | None]


StepKind = Literal["computed", "reused", "half", "extrapolated"]


class TimelineStep(TypedDict):
    ms: float  # device-synchronised
    kind: StepKind
    sigma: float | None  # noise level that the step started from
    blocks: list[str]  # a word per branch, a letter per block: c(omputed) r(eused) h(alf) (e)x(trapolated)
    why: str  # why a cache did what it did; empty without one


class CurrentStep(TypedDict):
    step: int
    sigma: float


class StepTimeline(TypedDict):
    """A bar a step, as high as its real milliseconds, over a strip that shows what each block did."""

    total: int  # steps that there will be
    branches: list[str]  # names of the passes a step has, such as ["cond", "uncond"]
    steps: list[TimelineStep]
    current: CurrentStep | None  # the step under way
    uncached_ms: float | None  # what a step takes here without a cache, drawn as a line where steps were saved


class QueuedJob(TypedDict):
    id: str
    state: str
    position: int | None
    prompt: str
    line: str  # the settings in one line
    note: str  # what went wrong
    shown: bool  # whether this is the one in the live area
    actions: list[str]  # of: show, cancel, up, retry


class QueueList(TypedDict):
    """Who waits, who is at work, what went wrong. A button sends `act` with {action, job}."""

    paused: bool
    may_pause: bool  # whether this visitor may pause the queue
    jobs: list[QueuedJob]


class RunTile(TypedDict):
    id: str
    prompt: str
    line: str
    state: str
    partial: bool
    poster: str  # a `data:` address, or empty


class RunGrid(TypedDict):
    """Runs as small pictures with their prompt. A click sends `choose` with {run}."""

    total: int  # how many there are
    runs: list[RunTile]
    empty: str  # said where there are none
    chosen: NotRequired[str]  # id of the one shown beside the grid


class ClipRow(TypedDict):
    id: str
    state: Literal["reading", "ready", "left out"]
    name: str
    line: str  # size and length
    note: str  # why it was left out
    picture: str  # a `data:` address, or nothing
    caption: str | None  # None until the file was read or something was typed
    held_out: bool


class ClipList(TypedDict):
    """Clips to learn from: a picture, what is known of each, its caption and whether it is held out.

    What is typed and ticked is written into the value, so that it goes along with whatever is sent next, and it wins
    over what arrives meanwhile; each change sends `edit`, a button sends `remove` with {clip}.
    """

    clips: list[ClipRow]


class TrainingLine(TypedDict):
    name: str  # "latent" or "pixel"
    points: list[list[float]]  # step and loss


class DecoderMemory(TypedDict):
    """Bytes held for the way back through the decoder, and what full backpropagation would hold."""

    held: int
    full: int
    held_words: str
    full_words: str


class TrainingPlot(TypedDict):
    """A training as it goes: losses as lines over the steps, scores of held-out samples as points on a second axis.

    The losses' axis is logarithmic where they are far apart, and says so. Pointing at the plot, or the arrow keys, read
    the nearest step out.
    """

    total: int  # steps that were asked for
    lines: list[TrainingLine]
    scores: list[list[float]]  # step and PSNR in dB; step 0 is the model as it was
    mean_of: int  # neighbouring steps that each point of a line is the mean of
    memory: DecoderMemory | None


class ListedVersion(TypedDict):
    id: str
    title: str
    line: str  # preset and date
    state: str
    steps: str
    base: str
    own: str
    gain: str
    worse: bool  # than the model it came from
    promoted: bool  # whether new requests start from it


class VersionList(TypedDict):
    """Versions as a table, one of them chosen: what each learnt, and what it scores beside the model it came from.

    A click sends `choose` with {version}.
    """

    empty: str  # said where there are none
    versions: NotRequired[list[ListedVersion]]
    chosen: NotRequired[str]


class MethodRow(TypedDict):
    shape: int  # the method's mark
    title: str
    clips: str
    denoising: str
    whole: str
    computed: str
    scores: list[str]


class ComparedClip(TypedDict):
    cell: int
    shape: int  # the method's mark
    title: str
    state: str
    reference: bool
    denoising: str
    whole: str
    parts: str  # what the whole run is made of, said when it is pointed at
    faster: str
    scores: list[str]
    marks: list[str]  # such as "stored"
    note: str  # what went wrong, or what to know about the figures


class ComparedGroup(TypedDict):
    number: int
    title: str  # the prompt
    line: str  # what else its cells share
    rows: list[ComparedClip]


class ComparisonTable(TypedDict, total=False):
    """A comparison as a table that fills: by method, then every clip beside its reference.

    A tick sends `pick` with {cell, on}; a button sends `restore` with {cell}.
    """

    heads: list[str]  # names of the scores, with their units
    summary: list[MethodRow]
    groups: list[ComparedGroup]
    picked: list[int]  # cells shown in the player
    most: int  # how many may be picked
    empty: str  # said where there are no groups


class FigureColumn(TypedDict):
    title: str  # with its unit
    hint: str  # what it says, when it is pointed at


class FigureRow(TypedDict):
    key: str
    shape: int  # the method's mark
    title: str
    state: str
    marks: list[str]  # such as "stored"
    cells: list[str]  # one for each column; none where there are no figures yet
    note: str  # what went wrong, or is being done
    may_be_picked: bool


class FigureGroup(TypedDict):
    title: str  # the clip; empty where there is one alone
    line: str
    rows: list[FigureRow]


class FigureTable(TypedDict, total=False):
    """Figures of enlargements, a row for each method. A tick sends `pick` with {key, on}."""

    title: str
    hint: str
    columns: list[FigureColumn]
    groups: list[FigureGroup]
    notes: list[str]  # sentences under the table
    picked: list[str]  # rows shown in the player
    most: int  # how many may be picked


class PlottedMethod(TypedDict):
    shape: int  # the method's mark and hue
    title: str


class PlottedMetric(TypedDict):
    name: str
    title: str
    unit: str
    digits: int  # behind the point
    higher_is_better: bool | None


class PlottedPace(TypedDict):
    name: str
    title: str  # where there are several to choose among
    axis: str
    unit: str  # behind a number of the axis
    words: str  # behind a speed in a sentence
    log: bool  # whether speeds may lie far apart; else they are ratios around 1


class PlottedPoint(TypedDict):
    cell: int  # negative for a median or mean
    shape: int
    title: str
    line: str  # the prompt and the seed, or the clip
    speeds: dict[str, float | None]  # by pace
    scores: dict[str, Figure]


class ParetoPlot(TypedDict):
    """Measured speed to the right, a score upwards, one mark for each method and group.

    Better is always up: an axis whose figure is better when small is turned about. A click, or Enter, sends `choose`
    with {cell}.
    """

    methods: list[PlottedMethod]  # in the grid's order
    metrics: list[PlottedMetric]
    paces: list[PlottedPace]
    points: list[PlottedPoint]
    medians: list[PlottedPoint]  # one for each method where there are several groups: large marks
    fronts: dict[str, dict[str, list[list[Figure]]]]  # by pace and metric: what nothing beats in both
    chosen: int | None  # cell of the point that was clicked
    hint: str  # what a click does
    large: str  # what the large marks are
    perfect: str  # what an infinite score says


class PlayedScores(TypedDict):
    name: str
    unit: str
    higher_is_better: bool
    values: list[Figure]  # one per frame


class ServedFile(TypedDict):
    """A file that Gradio may serve: it recognises the record on its way to the browser and writes the address into it,
    whatever folder or proxy the page lives behind."""

    path: str
    meta: dict[str, str]


class PlayedClip(TypedDict):
    title: str
    url: str | ServedFile
    facts: list[str]  # short words under the title, such as "2.1×"
    scores: PlayedScores | None


class SyncedPlayer(TypedDict):
    """Two to four clips under one clock, as wipe, side by side, difference, or one laid over the other.

    Each clip's frames are decoded once and drawn from one clock, so that the pictures cannot drift apart; each canvas
    says in `data-frames` which frames it shows.
    """

    fps: float  # frames a second, of all clips
    num_frames: int  # frames of the comparison; a shorter clip's last frame stays
    cache_megabytes: float  # room for decoded frames; clips that need more are sought frame by frame
    clips: list[PlayedClip]  # the reference first, then one to three others
    overlay: NotRequired[bool]  # whether the others are painted on black, to be laid over the reference
