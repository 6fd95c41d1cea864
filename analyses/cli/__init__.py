"""The command line `circuits`.

- main: the command line, with the commands models, list and heads.
- train, measure, figures, explore: the other commands.
- options, plans, runs: the options of a training run, its plan, and the run itself.
- corpus, run_folder: the text that a run reads, and the folder that it writes.
"""
