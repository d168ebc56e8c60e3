"""The command line: one verb a module, or a group of verbs."""
