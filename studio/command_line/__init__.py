"""The command line, one file for each kind of command: the same verbs, requests and events as the page, printed.

    grammar.py       how every command is spelled, stopped and answered in JSON
    generating.py    generate
    comparing.py     compare
    finetuning.py    finetune, versions, rollback
    enlarging.py     upscale, enlargements
    mapping.py       maps, map-sets
    driving.py       drive
    inserting.py     harmonise, insertions
    enlarger_training.py finetune-enlarger, enlarger-versions
    models.py        presets, download, calibrate, doctor
    runs.py          runs
    worlds.py        world render, pocket train, super-resolver, harmoniser and driver

Knows flags and printing. Refuses to know how anything is done. Each command imports what it needs when it is called, so
that help is quick.
"""
