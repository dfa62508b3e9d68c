"""The command line: one file a command, a few lines each; heavy imports only inside the handlers."""
