"""The command line. `main` collects the commands of the other modules.

- main: `circuits`, with its short commands.
- train, measure, figures, explore: one module for each group of commands.
- runs, corpus: whole training runs, and the text that they read.
"""
