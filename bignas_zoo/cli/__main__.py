"""``python -m bignas_zoo.cli``: the command, where no script of its name is installed."""

from bignas_zoo.cli.start import main

if __name__ == "__main__":
    main()
