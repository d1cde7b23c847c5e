"""The command line: each command parses, calls the library and prints. Nothing heavy is imported to answer help."""
