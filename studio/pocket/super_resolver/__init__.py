"""The pocket super-resolver from nothing: pictures are gathered, the filter is solved for, the network is trained.

    python -m studio pocket super-resolver all --photographs / --export-to assets/pocket/super-resolver

    photographs.py    openly licensed photographs, by package, author and licence, and clips of moving over them
    data.py           clips of photographs and of the driving world, in flat files
    degradation.py    what happens to a clip before somebody wishes it were larger
    recipe.py         pairs, losses, and the figures by which weights are taken or refused
    train.py          the stages, in order

Knows files, clips and losses. Refuses to know who enlarges with what comes of it.
"""
