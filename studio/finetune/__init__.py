"""Fine-tune: clips become a low-rank update of a preset's model, as a version that every tab can use.

    for event in finetune(request, store=RunStore(folder)):
        ...
    for event in go_on(version_id, store=RunStore(folder)):
        ...

Under `torchrun` several processes train as one: each takes its own samples and holds its share of the frozen denoiser;
the first one writes.
Closing the stream stops after the step under way and keeps what was learnt. A killed process loses at most the steps
since the last checkpoint; what goes on from there is, on a CPU, bit for bit what would have been.

    verb.py          what is called; loads nothing by itself
    walk.py          one training, from the models' loading to the finished version
    preparing.py     samples as the model sees them
    sampling.py      clips that the model makes meanwhile
    training.py      steps, scores, state
    decoder_memory.py what the way back through the decoder holds
    objectives.py    what is minimised
    clips.py         files become samples
    notebook.py      what is written of a training, by the first process alone
    room.py          memory that runs out, and what needs less of it
    card.py          the version's model card
    publish.py       to the Hub
    enlarger_verb.py, enlarger.py  the same for a model that enlarges, whole weights in the place of low-rank updates

Knows the order of the work. Refuses to know how gradients go through a decoder (`chopgrad`), how a family is called
(`pipelines`), and who listens.
"""

from studio.finetune.verb import begin, finetune, forecast, go_on, preset_of, train

__all__ = ["begin", "finetune", "forecast", "go_on", "preset_of", "train"]
