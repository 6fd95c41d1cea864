"""The command line. `main` collects the commands of the other modules.

- main: `circuits`, with its short commands.
- train, measure, figures, explore: one module for each group of commands.
- options, plans, runs: the options of a training run, its parts, and the run itself.
- corpus, run_folder: the text that a run reads, and the folder that it writes.
"""
