"""The pocket harmoniser from nothing: pairs of the driving world are rendered, the network is trained.

    python -m studio pocket harmoniser all --export-to assets/pocket/harmoniser

    data.py         pairs: a vehicle pasted into a world it never drove in, and the world in which it does
    recipe.py       losses, and the figures by which weights are taken or refused
    train.py        the stages, in order
    card.py         what is said of the weights

Knows files, pairs and losses. Refuses to know who pastes what into which clip.
"""
