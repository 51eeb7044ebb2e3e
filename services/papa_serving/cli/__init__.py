"""The command line: `papa`. Each command is a thin reading of its options; the work is done in the other rooms."""
