"""A packed dataset as files of other tools, and its held-out records as tasks of an evaluator.

`exporting` tells the story: chunks of rows (`chunks`) go to a form (`forms`, one file a kind of
file), which writes into a folder that appears whole (`folder`). `tasks` takes held-out documents
(`held_out`) instead.
"""
