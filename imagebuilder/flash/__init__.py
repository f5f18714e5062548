"""Write base and patch to cards: claim, write, verify, ledger, station.

May import the ground (errors, progress, model, workers, files, resources) and devices, disk,
images, plan, settings, build, boot, shack.
Entry points: `content.CardContents`, `flasher.flash_cards`, `station.Station`, `verify.compare`,
`apply_run.ApplyRun`, `apply_queue.ApplyQueue`.
"""
